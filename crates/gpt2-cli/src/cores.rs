//! How many threads are worth having: one for each core, for two on one core share its arithmetic.
//!
//! Linux says which processors this process may use and which of them are one core; elsewhere `num_cpus`
//! counts the cores of the machine. Either way no more than `available_parallelism`, which knows the
//! quota of a container.

/// The number of cores that this process may use at once; 1 if nothing is known.
pub(crate) fn usable() -> usize {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    physical().unwrap_or(at_once).clamp(1, at_once)
}

#[cfg(target_os = "linux")]
fn physical() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    linux::cores(&status, |processor| {
        let folder = format!("/sys/devices/system/cpu/cpu{processor}/topology");
        // The second is the name that the first had before Linux 5.3.
        ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| std::fs::read_to_string(format!("{folder}/{name}")).ok())
    })
}

#[cfg(not(target_os = "linux"))]
fn physical() -> Option<usize> {
    Some(num_cpus::get_physical())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;

    /// More processors than Linux runs on: a list that has more is none.
    const MOST: usize = 1 << 16;

    /// Counts the cores behind the processors that `status` allows.
    ///
    /// `siblings` gives the list of all processors of the same core, the processor itself among them.
    pub(super) fn cores(status: &str, siblings: impl Fn(usize) -> Option<String>) -> Option<usize> {
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        let mut cores = BTreeSet::new();
        for processor in list(allowed)? {
            // A core goes by the first of its processors.
            cores.insert(list(&siblings(processor)?)?.into_iter().min()?);
        }
        (!cores.is_empty()).then_some(cores.len())
    }

    /// Reads a list such as `0-3,8`.
    fn list(text: &str) -> Option<Vec<usize>> {
        let mut processors = Vec::new();
        for range in text.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            if last >= MOST {
                return None;
            }
            processors.extend(first..=last);
        }
        (processors.len() <= MOST).then_some(processors)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn cores_are_counted_once_and_only_where_the_process_may_run() {
            // Four cores of two processors: neighbours, or the first four and then their twins.
            let neighbours = |n: usize| Some(format!("{}-{}\n", n / 2 * 2, n / 2 * 2 + 1));
            let twins = |n: usize| Some(format!("{},{}\n", n % 4, n % 4 + 4));
            for (allowed, of_neighbours, of_twins) in [
                ("0-7", Some(4), Some(4)),
                ("0-3", Some(2), Some(4)),
                ("0,4", Some(2), Some(1)),
                ("2-3", Some(1), Some(2)),
                ("5", Some(1), Some(1)),
                ("0-2,7", Some(3), Some(4)),
                ("", None, None),
                ("all", None, None),
                ("3-0", None, None),
                ("0-18446744073709551615", None, None),
            ] {
                let status =
                    format!("Name:\tgpt2\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\nMems:\t1\n");
                assert_eq!(cores(&status, neighbours), of_neighbours, "neighbours, {allowed}");
                assert_eq!(cores(&status, twins), of_twins, "twins, {allowed}");
            }
        }

        #[test]
        fn what_cannot_be_told_is_not_guessed() {
            assert_eq!(cores("Name:\tgpt2\n", |_| Some("0".to_owned())), None);
            let status = "Cpus_allowed_list:\t0-1\n";
            assert_eq!(cores(status, |n| (n == 0).then(|| "0".to_owned())), None);
            assert_eq!(cores(status, |_| Some("\n".to_owned())), None);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_at_least_one_core_and_no_more_than_may_be_used() {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=at_once).contains(&super::usable()));
    }
}
