//! How a panel's blocks lie: in groups, the codes of each first, then what belongs to them (scales, minima), so that a
//! panel is read as one stream and codes begin at cache lines.

/// Sizes of a format's blocks for a whole panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    /// Bytes of a block's codes.
    pub codes: usize,
    /// Bytes of what belongs to them.
    pub extras: usize,
}

impl Blocks {
    /// Blocks of a group: as few as fill whole cache lines.
    pub(super) const fn group(self) -> usize {
        let mut count = 1;
        while !(self.extras * count).is_multiple_of(64) {
            count *= 2;
        }
        count
    }

    /// Bytes of a block.
    pub(super) const fn bytes(self) -> usize {
        self.codes + self.extras
    }

    /// Where codes and extras of a block begin, of `blocks` in all. The last group may have fewer than the others.
    pub(super) fn places(self, block: usize, blocks: usize) -> (usize, usize) {
        let (first, within) = (block / self.group() * self.group(), block % self.group());
        let count = self.group().min(blocks - first);
        let start = first * self.bytes();
        (start + within * self.codes, start + count * self.codes + within * self.extras)
    }

    /// The codes and the extras of a block.
    pub(super) fn split(self, panel: &mut [u8], block: usize, blocks: usize) -> (&mut [u8], &mut [u8]) {
        let (codes, extras) = self.places(block, blocks);
        let (before, after) = panel.split_at_mut(extras);
        (&mut before[codes..codes + self.codes], &mut after[..self.extras])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fill_a_panel_without_gaps_and_codes_begin_at_lines() {
        for (codes, extras) in
            [(256, 32), (512, 32), (256, 64), (256, 16), (1536, 288), (1024, 320), (128, 48)]
        {
            let sizes = Blocks { codes, extras };
            for blocks in [1, 2, 3, 5, 18] {
                let mut used = vec![0; sizes.bytes() * blocks];
                for block in 0..blocks {
                    let (at, _) = sizes.places(block, blocks);
                    assert!(at % 64 == 0, "{codes} {extras} {block}");
                    let (codes, extras) = sizes.split(&mut used, block, blocks);
                    codes.iter_mut().chain(extras).for_each(|byte| *byte += 1);
                }
                assert!(used.iter().all(|&count| count == 1));
            }
        }
    }
}
