//! Progress of work that takes long: one line on standard error, never longer than the terminal is wide.

use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that takes less than this shows no progress.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the line changes at most.
const PAUSE: Duration = Duration::from_millis(100);

/// What progress is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Tokens,
    Prompts,
}

/// A line on standard error, which appears if the work takes long.
pub(crate) struct Progress {
    bar: ProgressBar,
    label: String,
    unit: Unit,
    begin: Instant,
    /// What was done already when the work began.
    first: Option<u64>,
    drawn: Option<Instant>,
    /// Whether there is anyone to see it.
    visible: bool,
}

impl Progress {
    /// Makes the line, which is not shown yet.
    pub(crate) fn new(label: &str, unit: Unit, visible: bool) -> Self {
        let (bar, label) = (ProgressBar::hidden(), label.to_owned());
        Self { bar, label, unit, begin: Instant::now(), first: None, drawn: None, visible }
    }

    /// Shows that `done` of `total`, if that is known, is done.
    pub(crate) fn update(&mut self, done: u64, total: Option<u64>) {
        let first = *self.first.get_or_insert(done);
        let elapsed = self.begin.elapsed();
        let due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE);
        // What has not begun is no progress.
        if !self.visible || elapsed < PATIENCE || !due || done == 0 {
            return;
        }
        if self.drawn.is_none() {
            let style = ProgressStyle::with_template("{msg}").expect("the template is well-formed");
            self.bar.set_style(style);
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        self.drawn = Some(Instant::now());
        let columns = Term::stderr().size_checked().map_or(80, |(_, columns)| usize::from(columns));
        let state = State { done, total, new: done.saturating_sub(first), elapsed };
        self.bar.set_message(line(&self.label, self.unit, state, columns));
        self.bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How far the work is.
#[derive(Clone, Copy)]
struct State {
    done: u64,
    total: Option<u64>,
    /// What was done since the beginning, without what was done before.
    new: u64,
    elapsed: Duration,
}

/// Draws the line: what fits of label, bar, numbers, speed and the time that is left.
fn line(label: &str, unit: Unit, state: State, columns: usize) -> String {
    const LONGEST_BAR: usize = 30;
    const SHORTEST_BAR: usize = 5;
    // In the last column, some terminals begin a new line.
    let room = columns.saturating_sub(1);
    let State { done, total, new, elapsed } = state;
    let numbers = match (unit, total) {
        (Unit::Bytes, Some(total)) => format!("{} of {}", bytes(done), bytes(total)),
        (Unit::Bytes, None) => bytes(done),
        (_, Some(total)) => format!("{done} of {total} {}", unit.name()),
        (_, None) => format!("{done} {}", unit.name()),
    };
    let rate = new as f64 / elapsed.as_secs_f64();
    let known = new > 0 && rate.is_finite();
    let speed = (known && unit == Unit::Bytes).then(|| format!("{}/s", bytes(rate as u64)));
    let left = total.filter(|_| known).and_then(|total| {
        // A server may claim a size that would take longer than there are seconds to count.
        let left = Duration::try_from_secs_f64(total.saturating_sub(done) as f64 / rate).ok()?;
        Some(format!("{} left", time(left)))
    });
    let share = total.map(|total| format!("{:.0} %", 100.0 * done as f64 / total.max(1) as f64));
    let join = |parts: &[Option<&String>]| {
        parts.iter().flatten().map(|part| part.as_str()).collect::<Vec<_>>().join(", ")
    };
    let choices = [
        join(&[Some(&numbers), speed.as_ref(), left.as_ref()]),
        join(&[share.as_ref().or(Some(&numbers)), left.as_ref()]),
        share.unwrap_or(numbers),
    ];
    let label_columns = label.chars().count();
    let fitting = choices.iter().find(|text| label_columns + 1 + text.chars().count() <= room);
    let Some(text) = fitting else {
        return choices[2].chars().take(room).collect();
    };
    let bar = room - label_columns - 1 - text.chars().count();
    let bar = bar.saturating_sub(1).min(LONGEST_BAR);
    match total.filter(|_| bar >= SHORTEST_BAR) {
        Some(total) => {
            let full = (bar as f64 * done.min(total) as f64 / total.max(1) as f64) as usize;
            format!("{label} {}{} {text}", "━".repeat(full), " ".repeat(bar - full))
        }
        None => format!("{label} {text}"),
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Tokens => "tokens",
            Self::Prompts => "prompts",
        }
    }
}

/// A number of bytes, to a tenth, in the powers of ten that the hub counts in.
fn bytes(number: u64) -> String {
    match number {
        0..1_000 => format!("{number} B"),
        1_000..1_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number as f64 / 1e6),
        _ => format!("{:.2} GB", number as f64 / 1e9),
    }
}

/// A time, to the second or, from an hour on, to the minute.
fn time(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        seconds => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(done: u64, total: Option<u64>, new: u64, seconds: u64) -> State {
        State { done, total, new, elapsed: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_line_is_never_wider_than_the_terminal() {
        let weights = state(212_900_000, Some(548_105_171), 212_900_000, 5);
        let shard = "model-00001-of-00002.safetensors";
        for columns in 0..130 {
            for label in ["loading", shard] {
                for unit in [Unit::Bytes, Unit::Tokens] {
                    let line = line(label, unit, weights, columns);
                    assert!(line.chars().count() < columns.max(1), "{columns}: {line:?}");
                }
            }
        }
        let expected = "model-00001-of-00002.safetensors ━     212.9 MB of 548.1 MB, 42.6 MB/s, 7s left";
        assert_eq!(line(shard, Unit::Bytes, weights, 80), expected);
        assert_eq!(
            line("model.safetensors", Unit::Bytes, weights, 50),
            "model.safetensors ━━━━━━            39 %, 7s left"
        );
        assert_eq!(line("loading", Unit::Bytes, weights, 20), "loading ━━     39 %");
    }

    #[test]
    fn the_speed_of_a_resumed_download_is_that_of_new_bytes() {
        // 300 MB were here before, and 40 MB came in a second.
        let line = line("x", Unit::Bytes, state(340_000_000, Some(500_000_000), 40_000_000, 1), 80);
        assert!(line.ends_with("340.0 MB of 500.0 MB, 40.0 MB/s, 4s left"), "{line}");
    }

    #[test]
    fn nothing_is_said_of_speed_and_time_before_there_is_any() {
        let line = line("x", Unit::Bytes, state(300_000_000, Some(500_000_000), 0, 1), 80);
        assert!(line.ends_with("300.0 MB of 500.0 MB"), "{line}");
        assert_eq!(super::line("x", Unit::Prompts, state(3, None, 3, 1), 80), "x 3 prompts");
    }

    #[test]
    fn a_time_too_long_to_count_is_left_out() {
        let line = line("x", Unit::Bytes, state(1, Some(u64::MAX), 1, 1_000_000), 80);
        assert!(line.ends_with("1 B of 18446744073.71 GB, 0 B/s"), "{line}");
    }

    #[test]
    fn times_are_to_the_second_and_long_ones_to_the_minute() {
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (125, "2m 5s"), (3725, "1h 2m")] {
            assert_eq!(time(Duration::from_secs(seconds)), expected);
        }
    }
}
