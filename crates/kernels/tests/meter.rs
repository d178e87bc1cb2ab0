//! The meter as a program's allocator. A process of its own, so that no other test allocates while it counts.

use ounce_kernels::meter::{Meter, high_water};

#[global_allocator]
static METER: Meter = Meter;

#[test]
fn the_most_that_was_held_at_a_time_is_counted() {
    let before = vec![0u8; 1 << 20];
    let (length, peak) = high_water(|| {
        drop(before);
        let first = vec![1u8; 3 << 20];
        let length = first.len();
        drop(first);
        let mut second = vec![1u8; 1 << 20];
        second.resize(2 << 20, 0);
        length + second.len()
    });
    assert_eq!(length, 5 << 20);
    // What was freed counts against what came: 3 MiB less the first one.
    let peak = peak.expect("there is a meter");
    assert!((2 << 20..(2 << 20) + 65_536).contains(&peak), "{peak}");
    let (_, again) = high_water(|| drop(vec![0u8; 1 << 16]));
    assert!((1 << 16..1 << 17).contains(&again.expect("there is a meter")), "{again:?}");
}
