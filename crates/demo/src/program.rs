//! The programs that the daemons run: built beside this one with the same profile, built for another processor by `toolchains/build`, or
//! taken from a folder that the user names. It starts none of them.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidelog_sim::board::{self, EMULATOR};

use crate::field::GATEWAYS;
use crate::target::Target;

const CLOUD: &str = "tidelog-cloud";
const GATEWAY: &str = "tidelog-gateway";
const BOARD: &str = "tidelog-mps2-an386";
const BOARD_TARGET: &str = "thumbv7em";
/// What `toolchains/build` is told beside the target: what tests/run tells it too, so that neither builds what the other has built.
const ROUTER_BUILD: [&str; 5] = ["--locked", "--profile", "router", "--package", GATEWAY];

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// `cargo build` of the daemons failed.
    #[error("the daemons cannot be built: {0}")]
    Build(String),
    /// `toolchains/build` failed; it has said on standard error why, and what to install.
    #[error(
        "{what} cannot be built: {script} {reason}; docs/CROSS.md says what it takes for gateways, docs/FLASHING.md for boards. With --bin-dir \
         DIR the demo takes what is in DIR/{target}"
    )]
    CrossBuild {
        /// What was to be built.
        what: String,
        /// As `toolchains/build` names the processor.
        target: &'static str,
        /// The script.
        script: PathBuf,
        /// How it ended.
        reason: String,
    },
    /// The program is not where it should be.
    #[error(
        "there is no {path}; --bin-dir DIR names a folder with tidelog-gateway and tidelog-cloud for this processor, for another one with \
         TARGET/tidelog-gateway, and for boards with {BOARD_TARGET}/{BOARD}"
    )]
    Absent {
        /// Where it should be.
        path: PathBuf,
    },
    /// The emulator does not run.
    #[error(
        "a gateway for {target} runs here under {emulator}, which does not start ({reason}); Debian and Ubuntu have it in the package \
         qemu-user: sudo apt-get install qemu-user"
    )]
    Emulator {
        /// Its program.
        emulator: &'static str,
        /// The processor.
        target: Target,
        /// What the system said.
        reason: io::Error,
    },
    /// There is nothing to run boards with.
    #[error(
        "boards run under {EMULATOR} here, which does not start; Debian and Ubuntu have it in the package qemu-system-arm: sudo apt-get install \
         --no-install-recommends qemu-system-arm"
    )]
    BoardEmulator,
    /// The system refused something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A program, and the processor that it is for.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Its processor.
    pub target: Target,
}

impl Program {
    /// The command that runs it; its arguments come behind.
    #[must_use]
    pub fn command(&self) -> Command {
        let Some(emulator) = self.target.emulator() else { return Command::new(&self.path) };
        let mut command = Command::new(emulator);
        command.arg(&self.path);
        command
    }
}

/// What each daemon of the field runs.
pub struct Programs {
    /// The cloud node, for this processor.
    pub cloud: Program,
    /// The gateways, in their order.
    pub gateways: [Program; GATEWAYS],
    /// What emulated boards run, if there are any.
    pub board: Option<PathBuf>,
}

impl Programs {
    /// Builds the daemons, gateways for other processors and the boards' program with `toolchains/build`; or takes those in `bin_dir` as they are.
    ///
    /// # Errors
    /// [`ProgramError`] says what is missing, and where it comes from.
    pub fn find(
        bin_dir: Option<&Path>,
        targets: [Target; GATEWAYS],
        boards: bool,
    ) -> Result<Self, ProgramError> {
        // Asked before anything is built: a build takes minutes.
        if boards && !board::can_run() {
            return Err(ProgramError::BoardEmulator);
        }
        targets.into_iter().try_for_each(emulator_runs)?;
        let native = match bin_dir {
            Some(folder) => folder.to_owned(),
            None => build_native()?,
        };
        let gateway = |target: Target| {
            let path = match (target, bin_dir) {
                (Target::Native, _) => native.join(GATEWAY),
                (_, Some(folder)) => folder.join(target.name()).join(GATEWAY),
                (_, None) => cross_build(target.name(), &ROUTER_BUILD, &format!("the gateway for {target}"))?,
            };
            present(Program { path, target })
        };
        let [first, second] = targets;
        let gateways = if first == second {
            let both = gateway(first)?;
            [both.clone(), both]
        } else {
            [gateway(first)?, gateway(second)?]
        };
        let board = match bin_dir {
            _ if !boards => None,
            Some(folder) => {
                let path = folder.join(BOARD_TARGET).join(BOARD);
                Some(if path.is_file() { path } else { return Err(ProgramError::Absent { path }) })
            }
            None => Some(cross_build(BOARD_TARGET, &["--locked"], "the boards' program")?),
        };
        let cloud = present(Program { path: native.join(CLOUD), target: Target::Native })?;
        Ok(Self { cloud, gateways, board })
    }
}

fn present(program: Program) -> Result<Program, ProgramError> {
    if program.path.is_file() { Ok(program) } else { Err(ProgramError::Absent { path: program.path }) }
}

fn emulator_runs(target: Target) -> Result<(), ProgramError> {
    let Some(emulator) = target.emulator() else { return Ok(()) };
    let said = Command::new(emulator).arg("--version").stdin(Stdio::null()).output();
    match said {
        Ok(_) => Ok(()),
        Err(reason) => Err(ProgramError::Emulator { emulator, target, reason }),
    }
}

/// The folder of the daemons for this processor, after the cargo that runs the demo has built them.
fn build_native() -> Result<PathBuf, ProgramError> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map(Path::to_owned).unwrap_or_default();
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(beside) };
    let mut build = builder(&cargo);
    // The demo's own package is named too: with the same packages, dependencies keep the same features and none
    // is compiled twice.
    build.args(["build", "--quiet", "-p", "tidelog-demo", "-p", GATEWAY, "-p", CLOUD]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let status = build.stdout(Stdio::null()).status().map_err(|e| ProgramError::Build(e.to_string()))?;
    if status.success() {
        Ok(beside)
    } else {
        Err(ProgramError::Build(format!("cargo build ended with {status}")))
    }
}

/// A program for another processor, after `toolchains/build` has built it. Its progress goes to standard error.
fn cross_build(target: &'static str, arguments: &[&str], what: &str) -> Result<PathBuf, ProgramError> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = package.ancestors().nth(2).unwrap_or(package).join("toolchains/build");
    let failed = |reason: String| ProgramError::CrossBuild {
        what: what.to_owned(),
        target,
        script: script.clone(),
        reason,
    };
    eprintln!("building {what}: minutes the first time, seconds from then on");
    let mut build = builder(script.as_os_str());
    let built = build.arg(target).args(arguments).stderr(Stdio::inherit()).output();
    let built = built.map_err(|e| failed(format!("cannot be run: {e}")))?;
    if !built.status.success() {
        return Err(failed(format!("ended with {}", built.status)));
    }
    let said = String::from_utf8_lossy(&built.stdout);
    said.lines().last().map(PathBuf::from).ok_or_else(|| failed("named no program".to_owned()))
}

/// A command that builds. What cargo told this program about its own package is not for another build: build scripts that watch those
/// variables would run again, and half of the dependencies with them.
fn builder(program: &OsStr) -> Command {
    let mut build = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let about_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if name.to_str().is_some_and(|name| about_package.iter().any(|about| name.starts_with(about))) {
            build.env_remove(name);
        }
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    build
}
