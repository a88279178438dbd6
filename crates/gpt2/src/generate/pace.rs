//! How long drafts should be: as long as a token is expected to come sooner with them.
//!
//! With p the probability that the first guess is right and q that of each further one behind right ones, k guesses
//! bring `1 + p (1 + q + ... + q^(k-1))` tokens a forward pass (Leviathan et al. 2023, with p apart). What guessing and
//! a pass over so many rows take is measured as they happen, so drafts are short where arithmetic is dear, long where
//! the weights have to be read anyway, and there are none where they do not pay. None of it has a say in what the text
//! is.

use std::time::Duration;

/// By what share a pass gets longer with a further row, as long as nothing longer was measured.
const SLOPE: f64 = 0.05;
/// By what factor a draft must be expected to be faster: times are not known better than that.
const LEAST_GAIN: f64 = 1.05;
/// Drafts that are left out when they stopped to pay, at first; twice as many whenever a trial does not change that.
const SHORTEST_WAIT: usize = 16;
/// Most that are left out.
const LONGEST_WAIT: usize = 1024;
/// Guesses to try whether they pay again.
const TRIAL: usize = 2;
/// As how many observations an expectation counts.
const PRIOR: f64 = 2.0;
/// The share of guesses of a quicker model that may be expected to be right.
pub(super) const LIKELY: f64 = 0.7;
/// How much the past counts beside a new observation.
const MEMORY: f64 = 0.95;
/// How much a new measurement of a time counts.
const NEW: f64 = 0.25;

/// What is known about times and chances.
pub(super) struct Pace {
    /// Seconds of a forward pass by its number of rows, where it was measured.
    passes: Vec<Option<f64>>,
    /// Seconds of a guess for each sequence, once measured. Looking up takes none.
    guess: Option<f64>,
    classes: Vec<Class>,
}

/// Drafts of one kind, which are about as likely to be right.
struct Class {
    first: Rate,
    further: Rate,
    /// Drafts to be left out until the next trial, and behind that.
    waiting: usize,
    wait: usize,
}

/// A share of trials that fades.
struct Rate {
    hits: f64,
    trials: f64,
}

impl Rate {
    fn share(&self) -> f64 {
        self.hits / self.trials
    }

    fn add(&mut self, hit: bool) {
        self.hits = self.hits * MEMORY + f64::from(u8::from(hit));
        self.trials = self.trials * MEMORY + 1.0;
    }
}

impl Pace {
    /// Begins with classes of drafts, of each the share of them that may be expected to begin with a right guess.
    pub(super) fn new(classes: impl IntoIterator<Item = f64>) -> Self {
        let rate = |share: f64| Rate { hits: PRIOR * share, trials: PRIOR };
        let class =
            |share| Class { first: rate(share), further: rate(LIKELY), waiting: 0, wait: SHORTEST_WAIT };
        Self { passes: Vec::new(), guess: None, classes: classes.into_iter().map(class).collect() }
    }

    /// Says how many tokens, at most `most`, to guess for a sequence, of which `active` go through the model together.
    pub(super) fn length(&mut self, class: usize, active: usize, most: usize) -> usize {
        // The first pass shows what there is to save.
        if most == 0 || self.passes.get(active).is_none_or(Option::is_none) {
            return 0;
        }
        let guess = self.guess.unwrap_or(0.0);
        let Class { first, further, .. } = &self.classes[class];
        let (p, q) = (first.share(), further.share());
        let (mut tokens, mut chance) = (1.0, p);
        // With no guess there is a token a pass.
        let mut best = (0, LEAST_GAIN / self.time(active));
        for count in 1..=most {
            tokens += chance;
            chance *= q;
            let speed = tokens / (self.time(active * (1 + count)) + count as f64 * guess);
            if speed > best.1 {
                best = (count, speed);
            }
        }
        let class = &mut self.classes[class];
        match best.0 {
            0 if class.waiting > 0 => {
                class.waiting -= 1;
                0
            }
            0 => {
                class.waiting = class.wait;
                class.wait = (2 * class.wait).min(LONGEST_WAIT);
                TRIAL.min(most)
            }
            count => {
                (class.waiting, class.wait) = (0, SHORTEST_WAIT);
                count
            }
        }
    }

    /// Learns how long it took to guess so many tokens for each sequence.
    pub(super) fn drafted(&mut self, guesses: usize, time: Duration) {
        if guesses > 0 {
            learn(&mut self.guess, time.as_secs_f64() / guesses as f64);
        }
    }

    /// Learns how long a forward pass over so many rows took.
    pub(super) fn passed(&mut self, rows: usize, time: Duration) {
        if self.passes.len() <= rows {
            self.passes.resize(rows + 1, None);
        }
        learn(&mut self.passes[rows], time.as_secs_f64());
    }

    /// Learns that of so many guesses that were looked at the first `accepted` were right.
    pub(super) fn judged(&mut self, class: usize, seen: usize, accepted: usize) {
        let Class { first, further, .. } = &mut self.classes[class];
        for position in 0..seen {
            let rate = if position == 0 { &mut *first } else { &mut *further };
            rate.add(position < accepted);
        }
    }

    /// What a pass over so many rows is expected to take: as measured, or between the nearest that were measured. One
    /// with fewer rows takes no longer.
    fn time(&self, rows: usize) -> f64 {
        let known = |&(_, time): &(usize, &Option<f64>)| time.is_some();
        let above = self.passes.iter().enumerate().skip(rows).filter(known);
        let above =
            above.filter_map(|(rows, time)| Some((rows, (*time)?))).min_by(|a, b| a.1.total_cmp(&b.1));
        let below = self.passes.iter().enumerate().take(rows).rfind(known);
        let below = below.and_then(|(rows, time)| Some((rows, (*time)?)));
        match (below, above) {
            (_, Some((at, time))) if at == rows => time,
            (Some((a, below)), Some((b, above))) => {
                below.min(above) + (above - below).max(0.0) * (rows - a) as f64 / (b - a) as f64
            }
            (Some((a, below)), None) => below * (1.0 + SLOPE * (rows - a) as f64),
            (None, Some((b, above))) => above / (1.0 + SLOPE * (b - rows) as f64),
            (None, None) => 1.0 + SLOPE * rows as f64,
        }
    }
}

/// Takes a measurement into a running mean, in which a single hiccup counts for little.
fn learn(mean: &mut Option<f64>, seconds: f64) {
    *mean = Some(match *mean {
        None => seconds,
        Some(mean) => mean + NEW * (seconds.min(2.0 * mean) - mean),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Runs for a while where a pass over n rows takes `pass(n)`, a guess takes `guess`, and of each draft the first
    /// `right` are right; returns the lengths of the drafts.
    fn run(pass: impl Fn(usize) -> u64, guess: u64, right: usize) -> Vec<usize> {
        let mut pace = Pace::new([LIKELY]);
        let step = |_| {
            let count = pace.length(0, 1, 15);
            pace.drafted(count, milliseconds(guess) * count as u32);
            pace.passed(1 + count, milliseconds(pass(1 + count)));
            pace.judged(0, count.min(right + 1), count.min(right));
            count
        };
        (0..300).map(step).collect()
    }

    #[test]
    fn drafts_are_as_long_as_they_are_right_and_cheap() {
        // Reading the weights takes 18 ms, and arithmetic begins to count at the seventh row.
        let pass = |rows: usize| 18 + 2 * rows.saturating_sub(6) as u64;
        let mean = |lengths: &[usize]| lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        assert_eq!(run(pass, 0, 15)[50..], [15; 250]);
        assert!((4.0..7.0).contains(&mean(&run(pass, 2, 5)[50..])));
        assert!((1.0..5.0).contains(&mean(&run(pass, 2, 1)[50..])));
        // Nothing is right, or nothing is to be gained: trials get rare.
        assert!(mean(&run(pass, 2, 0)[50..]) < 0.1);
        assert!(mean(&run(|rows| 18 * rows as u64, 0, 1)[50..]) < 0.1);
        assert!(mean(&run(pass, 30, 15)[50..]) < 0.1);
    }

    #[test]
    fn times_between_those_measured_lie_between() {
        let mut pace = Pace::new([LIKELY]);
        pace.passed(1, milliseconds(20));
        pace.passed(11, milliseconds(40));
        assert!((pace.time(1) - 0.020).abs() < 1e-9 && (pace.time(6) - 0.030).abs() < 1e-9);
        assert!((pace.time(13) - 0.044).abs() < 1e-9);
        // A pass that took longer than one with more rows was disturbed.
        pace.passed(12, milliseconds(10));
        assert!((pace.time(11) - 0.010).abs() < 1e-9, "{}", pace.time(11));
    }
}
