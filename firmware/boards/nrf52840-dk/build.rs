//! Tells the linker where the board's memories are: what `src/map.rs` leaves to the program, so that no program reaches the settings or the log.

use std::path::PathBuf;

#[path = "src/map.rs"]
mod map;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=src/map.rs");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
    let memory = format!(
        "/* {log} bytes of log from {log_at:#x}, {settings} of settings from {settings_at:#x}. */\n\
         MEMORY\n{{\n  FLASH : ORIGIN = 0x00000000, LENGTH = {settings_at}\n  RAM   : ORIGIN = 0x20000000, LENGTH = 256K\n}}\n",
        log = map::LOG_BYTES,
        log_at = map::LOG_AT,
        settings = map::SETTINGS_BYTES,
        settings_at = map::SETTINGS_AT,
    );
    std::fs::write(out.join("memory.x"), memory)?;
    println!("cargo:rustc-link-search={}", out.display());
    // A section of its own for each function, so that what nobody calls is left out; pages of the flash are not aligned.
    println!("cargo:rustc-link-arg-bins=--nmagic");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    Ok(())
}
