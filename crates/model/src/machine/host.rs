//! What the system says about itself, without measuring: processor, caches, memory.

use std::fs;
use std::path::Path;

use ounce_kernels::isa;
use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, System};

/// A processor, as far as it tells two machines apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Its name as the maker gives it; empty where the system doesn't tell.
    pub model: String,
    /// Such as `x86_64`.
    pub architecture: String,
    /// Cores that this process may use, hardware threads counted each.
    pub cores: usize,
    /// Cores of the machine, hardware threads not counted; none where the system doesn't tell.
    pub physical_cores: Option<usize>,
    /// Features that matter to a language model's arithmetic, such as `avx512vnni`.
    pub features: Vec<String>,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

/// A cache of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// From 1, the closest to the core.
    pub level: u32,
    /// What it holds.
    pub kind: CacheKind,
    /// Its size. Virtual machines often report that of the whole host.
    pub bytes: u64,
    /// Cores that share it.
    pub shared_by: usize,
}

/// Main memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What the machine has, or what the control group allows if that is less.
    pub total_bytes: u64,
    /// What programs can take without pushing others out.
    pub available_bytes: u64,
}

impl Cpu {
    /// The processor of this machine.
    pub fn detect() -> Cpu {
        let model = System::new().ok().and_then(|mut system| {
            system.refresh_cpu_list(CpuRefreshKind::nothing());
            system.cpus().first().map(|cpu| cpu.brand().trim().to_string())
        });
        Cpu {
            model: model.unwrap_or_default(),
            architecture: std::env::consts::ARCH.to_string(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            physical_cores: System::physical_core_count().ok().filter(|&cores| cores > 0),
            features: isa::features().into_iter().map(str::to_string).collect(),
        }
    }
}

impl Memory {
    /// Memory now; none where the system doesn't tell.
    pub fn now() -> Option<Memory> {
        let mut system = System::new().ok()?;
        system.refresh_memory();
        let (mut total_bytes, mut available_bytes) = (system.total_memory(), system.available_memory());
        if let Some(limits) = system.cgroup_limits().filter(|limits| limits.total_memory > 0) {
            total_bytes = total_bytes.min(limits.total_memory);
            available_bytes = available_bytes.min(limits.free_memory);
        }
        let memory = Memory { total_bytes, available_bytes: available_bytes.min(total_bytes) };
        (memory.total_bytes > 0).then_some(memory)
    }
}

/// The caches of the first core, closest first; empty where the system doesn't list them.
pub fn caches() -> Vec<Cache> {
    caches_in(Path::new("/sys/devices/system/cpu/cpu0/cache"))
}

/// Reads what Linux lists about a core's caches, a folder each.
fn caches_in(folder: &Path) -> Vec<Cache> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut caches: Vec<Cache> = entries.flatten().filter_map(|entry| cache(&entry.path())).collect();
    caches.sort_by_key(|cache| (cache.level, cache.kind != CacheKind::Data));
    caches
}

fn cache(folder: &Path) -> Option<Cache> {
    let fact = |name: &str| Some(fs::read_to_string(folder.join(name)).ok()?.trim().to_string());
    let kind = match fact("type")?.as_str() {
        "Data" => CacheKind::Data,
        "Instruction" => CacheKind::Instruction,
        "Unified" => CacheKind::Unified,
        _ => return None,
    };
    let kibibytes: u64 = fact("size")?.strip_suffix('K')?.parse().ok()?;
    let bytes = kibibytes.checked_mul(1024).filter(|&bytes| bytes > 0)?;
    let shared_by = fact("shared_cpu_list").and_then(|list| cores_in(&list)).unwrap_or(1);
    Some(Cache { level: fact("level")?.parse().ok()?, kind, bytes, shared_by })
}

/// Cores in a list such as `0-3,8`; none if it is no such list.
fn cores_in(list: &str) -> Option<usize> {
    let cores = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').map(cores).sum()
}

/// The size of the second-level cache, as it was listed.
pub(super) fn second_level(caches: &[Cache]) -> Option<u64> {
    caches.iter().find(|cache| cache.level == 2 && cache.kind != CacheKind::Instruction).map(|it| it.bytes)
}

/// The size of the largest cache.
pub(super) fn largest(caches: &[Cache]) -> Option<u64> {
    caches.iter().map(|cache| cache.bytes).max()
}

/// Resident bytes of this process now and at most, where the system tells.
pub fn resident_bytes() -> (Option<u64>, Option<u64>) {
    let text = process_status();
    (status_bytes(&text, "VmRSS:"), status_bytes(&text, "VmHWM:"))
}

/// Resident bytes that are parts of files: of the program, its libraries and what it has mapped; where the system tells.
pub fn resident_file_bytes() -> Option<u64> {
    status_bytes(&process_status(), "RssFile:")
}

fn process_status() -> String {
    fs::read_to_string("/proc/self/status").unwrap_or_default()
}

fn status_bytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let cpu = Cpu::detect();
        assert!(cpu.cores >= 1 && cpu.architecture == std::env::consts::ARCH, "{cpu:?}");
        assert_eq!(cpu, Cpu::detect(), "a machine is the same twice");
        let memory = Memory::now().expect("every system that tests run on tells");
        assert!(memory.total_bytes >= memory.available_bytes && memory.total_bytes > 1 << 20, "{memory:?}");
    }

    #[test]
    fn caches_are_read_as_linux_lists_them() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for (index, facts) in [
            ["3", "Unified", "491520K", "0-15,32"],
            ["1", "Instruction", "64K", "0"],
            ["1", "Data", "48K", "0"],
            ["2", "Unified", "2048K", "0-1"],
            ["2", "Unified", "much", "0-1"],
            ["9", "Data", "0K", "0"],
        ]
        .iter()
        .enumerate()
        {
            let cache = folder.path().join(format!("index{index}"));
            fs::create_dir(&cache).expect("folder");
            for (name, fact) in ["level", "type", "size", "shared_cpu_list"].iter().zip(facts) {
                fs::write(cache.join(name), format!("{fact}\n")).expect("file");
            }
        }
        fs::write(folder.path().join("uevent"), "").expect("file");
        let caches = caches_in(folder.path());
        let facts: Vec<(u32, u64, usize)> =
            caches.iter().map(|it| (it.level, it.bytes >> 10, it.shared_by)).collect();
        assert_eq!(facts, [(1, 48, 1), (1, 64, 1), (2, 2048, 2), (3, 491_520, 17)]);
        assert_eq!((second_level(&caches), largest(&caches)), (Some(2 << 20), Some(480 << 20)));
        assert!(caches_in(&folder.path().join("nowhere")).is_empty());
    }

    #[test]
    fn lists_of_cores_are_counted() {
        for (list, cores) in
            [("0", Some(1)), ("0-3", Some(4)), ("0-1,4,6-7", Some(5)), ("", None), ("3-1", None), ("a", None)]
        {
            assert_eq!(cores_in(list), cores, "{list}");
        }
    }
}
