//! AMX, the unit of Intel servers that multiplies tiles: whether it is there, and whether this process may use it.
//!
//! A tile register holds 16 rows of 64 bytes. Their 8 KiB are more state than a process has by default, so Linux
//! gives them out on request only; other systems are not asked.

use std::sync::OnceLock;

/// What the processor multiplies tiles of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amx {
    /// int8 with sums in i32 (`tdpbssd`).
    pub int8: bool,
    /// bf16 with sums in f32 (`tdpbf16ps`).
    pub bf16: bool,
}

impl Amx {
    /// Whether there are tiles at all.
    pub fn any(self) -> bool {
        self.int8 || self.bf16
    }
}

/// The shape of a tile: 1 to 16 rows of 4 to 64 bytes, whole fours.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub rows: usize,
    pub bytes: usize,
}

/// The shapes of the eight tiles, as `ldtilecfg` reads them.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
pub(crate) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

#[cfg(target_arch = "x86_64")]
impl Shapes {
    pub(crate) const fn new(tiles: [Shape; 8]) -> Shapes {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut tile = 0;
        while tile < 8 {
            row_bytes[tile] = tiles[tile].bytes as u16;
            rows[tile] = tiles[tile].rows as u8;
            tile += 1;
        }
        Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }
}

/// What the processor has, permitted or not.
pub fn present() -> Amx {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        const BF16: u32 = 1 << 22;
        const TILE: u32 = 1 << 24;
        const INT8: u32 = 1 << 25;
        if __cpuid(0).eax >= 7 {
            let found = __cpuid_count(7, 0).edx;
            let has = |feature: u32| found & (TILE | feature) == TILE | feature;
            return Amx { int8: has(INT8), bf16: has(BF16) };
        }
    }
    Amx::default()
}

/// What this process may use: asks the system at the first call, for all threads from then on.
pub fn permitted() -> Amx {
    static PERMITTED: OnceLock<Amx> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        let present = present();
        if present.any() && request() { present } else { Amx::default() }
    })
}

/// Asks for the tiles' state; false if the system is too old to know it or keeps it.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn request() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call reads two numbers and no memory; all it can change is what later instructions may do.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn request() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_permitted_that_is_not_there() {
        let (present, permitted) = (present(), permitted());
        assert!(present.int8 || !permitted.int8);
        assert!(present.bf16 || !permitted.bf16);
    }
}
