//! What the programs here share: the line of JSON that a run ends with.

/// Prints seconds and losses of each step, and the most memory that the process has had.
pub fn report(seconds: &[f64], losses: &[f32]) -> Result<(), Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no peak memory")?;
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    let report = serde_json::json!({"name": "candle 0.11", "seconds": seconds, "losses": losses, "peak_bytes": kib << 10});
    println!("{report}");
    Ok(())
}
