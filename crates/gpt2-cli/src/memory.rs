//! Refusing a model that cannot fit into memory, before any of it is touched.
//!
//! Linux says how much memory can be had: for the machine in `/proc/meminfo`, for a container in the files of its
//! control groups, for the process in `/proc/self/limits`. Elsewhere nothing is refused. The estimate errs on the side
//! of trying: files that are in memory and free swap count as available, and only the weights have to fit, not what
//! comes on top of them. So there is no option to override it: what is refused would be killed, or take minutes for
//! every token. What is recommended instead has to fit with everything.

use std::fs;
use std::path::Path;

use clap::ValueEnum;
use gpt2::config::Config;
use gpt2::memory::MemoryNeed;
use gpt2::model::Formats;

use crate::arguments::Dtype;
use crate::failure::Failure;
use crate::terminal::bytes;

/// Tokens of a prompt that go through a model together, at most.
const PROMPT: usize = 512;
/// Room for the program and its tokenizer.
const PROGRAM: u64 = 48 << 20;
/// What a large buffer takes of the address space on top of its length, to start on a huge page: it is never touched.
const ALIGNMENT: u64 = 2 << 20;

/// Refuses a model whose weights are larger than the memory that is available.
pub(crate) fn check(name: &str, config: &Config, formats: Formats) -> Result<(), Failure> {
    available(config).map_or(Ok(()), |available| judge(name, config, formats, available))
}

/// Refuses a batch whose texts might not fit into the memory that is available: all in full contexts, with so many more
/// contexts of what is kept.
pub(crate) fn check_batch(
    name: &str,
    config: &Config,
    formats: Formats,
    slots: usize,
    kept: u64,
) -> Result<(), Failure> {
    let need = |slots| {
        let need = MemoryNeed::batch(config, formats, slots).total();
        need.saturating_add(contexts(config, formats, kept)).saturating_add(PROGRAM)
    };
    let Some(available) = available(config).filter(|&available| need(slots) > available) else {
        return Ok(());
    };
    let message = format!(
        "a batch of {slots} texts by `{name}` needs up to {} of memory, and {} are available",
        bytes(need(slots)),
        bytes(available)
    );
    let hint = match (1..slots).rev().find(|&slots| need(slots) <= available) {
        Some(fits) => format!("`--batch-size {fits}` would do"),
        None => "a smaller format, `--dtype` or `--kv-dtype`, may do".to_owned(),
    };
    Err(Failure::new(message).hint(hint))
}

/// The bytes of so many full contexts.
pub(crate) fn contexts(config: &Config, formats: Formats, count: u64) -> u64 {
    MemoryNeed::new(config, formats, 1).cache.saturating_mul(count)
}

/// Compares what a model needs with what there is.
fn judge(name: &str, config: &Config, formats: Formats, available: u64) -> Result<(), Failure> {
    let needed = MemoryNeed::new(config, formats, 1).weights;
    if needed <= available {
        return Ok(());
    }
    let message = format!(
        "`{name}` needs {} of memory for its weights in {}, and {} are available",
        bytes(needed),
        formats.weights.name(),
        bytes(available)
    );
    let all = Dtype::value_variants().iter().map(|dtype| dtype.format());
    let smaller = all.skip_while(|format| *format != formats.weights).skip(1);
    let needs: Vec<_> = smaller.map(|format| (format.name(), Need::new(config, format.into()))).collect();
    let fits_in_full = needs.iter().find(|(_, need)| need.in_full <= available);
    let fits_at_all = needs.last().filter(|(_, need)| need.without_context <= available);
    let hint = match (fits_in_full, fits_at_all) {
        (Some((format, need)), _) => {
            format!("`--dtype {format}` would do: {} with a full context", bytes(need.in_full))
        }
        (None, Some((format, need))) => format!(
            "`--dtype {format}` would do for short texts: {}, but {} with a full context",
            bytes(need.without_context),
            bytes(need.in_full)
        ),
        (None, None) => {
            "no smaller format of the weights would fit either: free some memory, or choose a smaller model"
                .to_owned()
        }
    };
    Err(Failure::new(message).hint(hint))
}

/// What the whole program needs with a model in some format, rather too much than too little.
struct Need {
    in_full: u64,
    without_context: u64,
}

impl Need {
    fn new(config: &Config, formats: Formats) -> Self {
        let need = MemoryNeed::new(config, formats, PROMPT.min(config.n_positions));
        // Buffers end within huge pages, the more of them the larger the model.
        let everything = |need: u64| need.saturating_add(need / 16).saturating_add(PROGRAM);
        let without_context = need.weights.saturating_add(need.workspace);
        Self { in_full: everything(need.total()), without_context: everything(without_context) }
    }
}

/// The bytes that the whole program needs with a model whose context is full.
pub(crate) fn in_full(config: &Config, formats: Formats) -> u64 {
    Need::new(config, formats).in_full
}

/// Bytes that a process may use for this model without being killed, as far as that is known.
pub(crate) fn available(config: &Config) -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let machine = Machine::parse(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let rooms = groups.lines().filter_map(Group::parse).flat_map(|group| group.rooms());
    let all = rooms.fold(machine.available, u64::min).saturating_add(machine.swap);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Four matrices in a layer, and the embeddings.
    let buffers = (config.n_layer as u64).saturating_mul(4).saturating_add(2);
    let unused = buffers.saturating_mul(ALIGNMENT);
    Some(own_rooms(&limits, &status).map(|room| room.saturating_sub(unused)).fold(all, u64::min))
}

/// What the limits of this process leave of its address space, whether touched or not: those of `ulimit -v` and `-d`.
fn own_rooms(limits: &str, status: &str) -> impl Iterator<Item = u64> {
    [("Max address space", "VmSize"), ("Max data size", "VmData")].into_iter().filter_map(|(limit, used)| {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        // No limit is the word `unlimited`.
        let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(limit.saturating_sub(kilobytes(status, used)?))
    })
}

/// The bytes that a line of `/proc/meminfo` or `/proc/self/status` tells: `NAME:   NUMBER kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What `/proc/meminfo` says.
#[derive(Debug, PartialEq)]
struct Machine {
    /// Memory that can be had without swapping: what is free, and files that can be read again.
    available: u64,
    /// Swap that is free.
    swap: u64,
}

impl Machine {
    fn parse(meminfo: &str) -> Option<Self> {
        let swap = kilobytes(meminfo, "SwapFree").unwrap_or(0);
        Some(Self { available: kilobytes(meminfo, "MemAvailable")?, swap })
    }
}

/// The control group that limits this process's memory.
#[derive(Debug, PartialEq)]
struct Group<'a> {
    version: Version,
    path: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    One,
    Two,
}

impl<'a> Group<'a> {
    /// Reads a line of `/proc/self/cgroup`: number, controllers, path.
    fn parse(line: &'a str) -> Option<Self> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let version = match (number, controllers) {
            ("0", "") => Version::Two,
            _ if controllers.split(',').any(|name| name == "memory") => Version::One,
            _ => return None,
        };
        Some(Self { version, path })
    }

    /// What the group and each of those around it have left; in a container, some of them cannot be seen.
    fn rooms(&self) -> Vec<u64> {
        let root = match self.version {
            Version::One => Path::new("/sys/fs/cgroup/memory"),
            Version::Two => Path::new("/sys/fs/cgroup"),
        };
        let inside = Path::new(self.path.trim_start_matches('/'));
        let read = |directory: &Path, name: &str| fs::read_to_string(directory.join(name)).ok();
        let (limit, usage) = match self.version {
            Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            Version::Two => ("memory.max", "memory.current"),
        };
        let room = |group: &Path| {
            let directory = root.join(group);
            let stat = read(&directory, "memory.stat").unwrap_or_default();
            room(self.version, &read(&directory, limit)?, &read(&directory, usage)?, &stat)
        };
        inside.ancestors().filter_map(room).collect()
    }
}

/// What a group has left: its limit without what it uses, where files that can be read again do not count as used.
fn room(version: Version, limit: &str, usage: &str, stat: &str) -> Option<u64> {
    // No limit is the word `max`, or in the first version a number beyond all memory.
    let limit: u64 = limit.trim().parse().ok()?;
    let usage: u64 = usage.trim().parse().ok()?;
    let names = match version {
        Version::One => ["total_inactive_file", "total_active_file"],
        Version::Two => ["inactive_file", "active_file"],
    };
    let value = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let files = names.into_iter().map(value).fold(0, u64::saturating_add);
    Some(limit.saturating_sub(usage.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "\
MemTotal:       24613544 kB
MemFree:          551232 kB
MemAvailable:   20971520 kB
SwapTotal:       2097148 kB
SwapFree:        1048576 kB
HugePages_Total:       0
";

    #[test]
    fn available_memory_is_read_from_meminfo() {
        let expected = Machine { available: 20 << 30, swap: 1 << 30 };
        assert_eq!(Machine::parse(MEMINFO), Some(expected));
        let expected = Machine { available: 5 << 10, swap: 0 };
        assert_eq!(Machine::parse("MemAvailable: 5 kB\n"), Some(expected));
        for unknown in ["", "MemTotal: 5 kB\n", "MemAvailable: 5\n", "MemAvailable: x kB\n"] {
            assert_eq!(Machine::parse(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn the_group_that_limits_memory_is_found_in_both_versions() {
        for (line, expected) in [
            ("0::/user.slice/a:b.scope", Some((Version::Two, "/user.slice/a:b.scope"))),
            ("0::/", Some((Version::Two, "/"))),
            ("9:memory:/docker/0123", Some((Version::One, "/docker/0123"))),
            ("4:cpu,memory:/x", Some((Version::One, "/x"))),
            ("3:cpuset:/x", None),
            ("1:name=systemd:/init.scope", None),
            ("", None),
        ] {
            let expected = expected.map(|(version, path)| Group { version, path });
            assert_eq!(Group::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn files_in_memory_do_not_count_as_used_and_no_limit_is_none() {
        let two = "anon 100\nfile 700\ninactive_file 200\nactive_file 300\n";
        let one = "inactive_file 7\ntotal_inactive_file 200\ntotal_active_file 300\n";
        for (version, limit, usage, stat, expected) in [
            (Version::Two, "1000\n", "900\n", two, Some(600)),
            (Version::One, "1000\n", "900\n", one, Some(600)),
            (Version::Two, "1000\n", "900\n", "", Some(100)),
            (Version::Two, "1000\n", "400\n", two, Some(1000)),
            (Version::Two, "1000\n", "1700\n", two, Some(0)),
            (Version::Two, "max\n", "900\n", two, None),
            (Version::Two, "1000\n", "", two, None),
        ] {
            assert_eq!(room(version, limit, usage, stat), expected, "{version:?} {limit} {usage}");
        }
    }

    #[test]
    fn limits_of_the_process_leave_what_it_does_not_use_yet() {
        let limits = "\
Limit                     Soft Limit           Hard Limit           Units     
Max file size             unlimited            unlimited            bytes     
Max data size             409600000            unlimited            bytes     
Max address space         1024000              2048000              bytes     
";
        let status = "VmPeak:\t    4000 kB\nVmSize:\t    1000 kB\nVmData:\t  300000 kB\n";
        let rooms = |limits: &str, status: &str| own_rooms(limits, status).collect::<Vec<_>>();
        assert_eq!(rooms(limits, status), [0, 102_400_000]);
        assert_eq!(rooms(limits, "VmData:\t 1 kB\n"), [409_598_976]);
        assert_eq!(rooms(&limits.replace("409600000", "unlimited"), status), [0]);
        assert_eq!(rooms("", status), [0; 0]);
        assert_eq!(rooms(limits, ""), [0; 0]);
    }

    #[test]
    fn the_largest_format_that_fits_is_named() {
        let config = Config::default();
        let fails = |available: u64| {
            let result = judge("gpt2", &config, gpt2_kernels::WeightFormat::F32.into(), available);
            result.err().map(|failure| format!("{failure:?}"))
        };
        assert_eq!(fails(600_000_000), None);
        for (available, expected) in [
            (400_000_000, "`--dtype bf16` would do: "),
            (260_000_000, "`--dtype int8` would do: "),
            (200_000_000, "`--dtype int4` would do: "),
            (170_000_000, "`--dtype int4` would do for short texts: "),
            (100_000_000, "no smaller format"),
        ] {
            let failure = fails(available).unwrap_or_default();
            assert!(failure.contains(expected), "{available}: {failure}");
            assert!(failure.contains("needs 498 MB of memory for its weights in f32"), "{failure}");
        }
    }
}
