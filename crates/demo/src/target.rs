//! The processors that a gateway of the field may be for, and what emulates them. It builds nothing and runs nothing.

use std::fmt;
use std::str::FromStr;

use crate::field::GATEWAYS;

/// A processor that a gateway may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one that runs the demo.
    Native,
    /// MIPS32, big-endian, soft float.
    Mips,
    /// MIPS32, little-endian, soft float.
    Mipsel,
    /// ARMv7, hard float.
    Armv7,
}

const ALL: [Target; 4] = [Target::Native, Target::Mips, Target::Mipsel, Target::Armv7];

/// Why `--gateways` names no targets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nobody builds or emulates it.
    #[error("no gateway is built for '{0}'; known are native, mips, mipsel and armv7")]
    Unknown(String),
    /// Too many, or none.
    #[error(
        "the field has {GATEWAYS} gateways: name one target for all of them, or {GATEWAYS} with a comma between"
    )]
    Count,
}

impl Target {
    /// As `--gateways` and `toolchains/build` name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Mips => "mips",
            Self::Mipsel => "mipsel",
            Self::Armv7 => "armv7",
        }
    }

    /// The processor that its programs run on.
    #[must_use]
    pub fn processor(self) -> &'static str {
        match self {
            Self::Native => std::env::consts::ARCH,
            _ => self.name(),
        }
    }

    /// The program that runs a program for this processor on another one.
    #[must_use]
    pub fn emulator(self) -> Option<&'static str> {
        match self {
            Self::Native => None,
            Self::Mips => Some("qemu-mips"),
            Self::Mipsel => Some("qemu-mipsel"),
            Self::Armv7 => Some("qemu-arm"),
        }
    }

    /// A target for each gateway, from a list as `--gateways` takes it: one stands for all.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn of_gateways(list: &str) -> Result<[Self; GATEWAYS], TargetError> {
        let targets = list.split(',').map(|name| name.trim().parse()).collect::<Result<Vec<Self>, _>>()?;
        match targets[..] {
            [all] => Ok([all; GATEWAYS]),
            _ => targets.try_into().map_err(|_| TargetError::Count),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(name: &str) -> Result<Self, TargetError> {
        let known = ALL.into_iter().find(|target| target.name() == name);
        known.ok_or_else(|| TargetError::Unknown(name.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_is_for_all_gateways_and_a_list_is_in_their_order() {
        assert_eq!(Target::of_gateways("mips"), Ok([Target::Mips, Target::Mips]));
        assert_eq!(Target::of_gateways("armv7,mips"), Ok([Target::Armv7, Target::Mips]));
        assert_eq!(Target::of_gateways("native, mipsel"), Ok([Target::Native, Target::Mipsel]));
    }

    #[test]
    fn what_is_no_target_is_refused_with_those_that_are_known() {
        let refused = |list| Target::of_gateways(list).unwrap_err().to_string();
        for list in ["", "riscv", "MIPS", "mips,", ",mips", "mips;armv7", "mips,riscv"] {
            let said = refused(list);
            assert!(ALL.iter().all(|target| said.contains(target.name())), "{list:?}: {said}");
        }
        assert!(refused("mips,riscv").contains("'riscv'"));
        assert_eq!(Target::of_gateways("mips,mips,mips"), Err(TargetError::Count));
    }

    #[test]
    fn each_target_is_known_by_its_own_name_and_each_other_processor_has_an_emulator() {
        for target in ALL {
            assert_eq!(target.to_string().parse(), Ok(target));
            assert_eq!(target.emulator().is_none(), target == Target::Native);
        }
    }
}
