//! What computes, in a line: the processor, the kernels, the threads, and the formats of what is in memory.

use gpt2::model::Formats;
use gpt2_kernels::Cpu;

use crate::terminal::counted;

/// Describes the device, for instance `cpu (AMD EPYC, avx2 kernels, 8 threads, f32 weights, f32 cache)`.
pub(crate) fn describe(cpu: &Cpu, formats: Option<Formats>) -> String {
    let mut parts = Vec::from_iter(processor());
    parts.push(format!("{} kernels", cpu.kernels.name()));
    parts.push(counted(cpu.pool.threads(), "thread"));
    if let Some(Formats { weights, cache, .. }) = formats {
        parts.push(format!("{} weights", weights.name()));
        parts.push(format!("{} cache", cache.name()));
    }
    format!("cpu ({})", parts.join(", "))
}

/// The processor's name, if it says one.
#[cfg(target_arch = "x86_64")]
fn processor() -> Option<String> {
    use std::arch::x86_64::__cpuid;

    const NAME: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;
    if __cpuid(0x8000_0000).eax < *NAME.end() {
        return None;
    }
    let registers = NAME.map(__cpuid).flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
    let bytes: Vec<u8> = registers.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
    tidy(&String::from_utf8_lossy(&bytes))
}

/// The processor's name, if it says one.
#[cfg(not(target_arch = "x86_64"))]
fn processor() -> Option<String> {
    // Linux names the processor on some architectures only; other systems do not have the file.
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = |line: &str| match line.split_once(':') {
        Some((key, name)) if key.trim() == "model name" => tidy(name),
        _ => None,
    };
    text.lines().find_map(name)
}

/// A name without trademarks, clock rates and padding.
fn tidy(name: &str) -> Option<String> {
    let name = name.replace("(R)", "").replace("(TM)", "").replace("(tm)", "");
    let name = name.split('@').next().unwrap_or_default();
    let words: Vec<&str> = name.split_whitespace().filter(|word| *word != "CPU").collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_goes_by_its_name_alone() {
        let name = |text| tidy(text).unwrap();
        assert_eq!(name("Intel(R) Xeon(R) Platinum 8488C"), "Intel Xeon Platinum 8488C");
        assert_eq!(name("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz "), "Intel Core i7-8700K");
        assert_eq!(name("AMD EPYC 7B13      "), "AMD EPYC 7B13");
        assert_eq!(tidy("  "), None);
    }
}
