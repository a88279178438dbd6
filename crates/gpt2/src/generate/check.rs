//! What settings may be, and which of them change nothing.

use super::GenerateError;
use super::config::{EarlyStopping, ForcedWords, GenerationConfig, Overflow, Rng, SamplerName};

/// A setting that changes nothing beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The name of the setting.
    pub setting: &'static str,
    /// Why it changes nothing.
    pub reason: &'static str,
}

/// Settings that change how fast a text comes, and nothing of the text.
pub const SPEED_ONLY: [Idle; 3] = {
    const fn of(setting: &'static str) -> Idle {
        Idle { setting, reason: "the model chooses every token, whatever was guessed" }
    }
    [of("prompt_lookup_num_tokens"), of("max_matching_ngram_size"), of("num_assistant_tokens")]
};

/// Whether a setting may have a value.
type Allowed = fn(f64) -> bool;

impl GenerationConfig {
    /// Checks every setting by itself and against the others.
    ///
    /// # Errors
    /// If one is out of its range or two contradict each other; the message names them.
    pub fn check(&self) -> Result<(), GenerateError> {
        self.check_numbers()?;
        self.check_choices()?;
        if let (Some(max_new_tokens), Some(max_length)) = (self.max_new_tokens, self.max_length) {
            return Err(GenerateError::TwoLengths { max_new_tokens, max_length });
        }
        let (beams, sequences) = (self.beams(), self.sequences());
        if sequences > 1 && beams == 1 && !self.samples() {
            return Err(GenerateError::SameSequences(sequences));
        }
        if beams > 1 && sequences > beams {
            return Err(GenerateError::MoreSequencesThanBeams { sequences, beams });
        }
        Ok(())
    }

    /// Checks what has a range of its own.
    fn check_numbers(&self) -> Result<(), GenerateError> {
        const POSITIVE: &str = "a number above 0";
        const FROM_ZERO: &str = "a number from 0";
        const SHARE: &str = "a number from 0 to 1";
        let numbers: [(&str, Option<f64>, &str, Allowed); 27] = [
            ("max_time", self.max_time, POSITIVE, |x| x > 0.0),
            ("length_penalty", self.length_penalty, "a number", |_| true),
            ("diversity_penalty", self.diversity_penalty, FROM_ZERO, |x| x >= 0.0),
            ("penalty_alpha", self.penalty_alpha, SHARE, share),
            ("guidance_scale", self.guidance_scale, "a number", |_| true),
            ("temperature", self.temperature, FROM_ZERO, |x| x >= 0.0),
            ("top_p", self.top_p, SHARE, share),
            ("min_p", self.min_p, SHARE, share),
            ("top_h", self.top_h, "a number above 0, at most 1", |x| x > 0.0 && x <= 1.0),
            ("typical_p", self.typical_p, "a number above 0, at most 1", |x| x > 0.0 && x <= 1.0),
            ("epsilon_cutoff", self.epsilon_cutoff, "a number from 0, below 1", |x| (0.0..1.0).contains(&x)),
            ("eta_cutoff", self.eta_cutoff, "a number from 0, below 1", |x| (0.0..1.0).contains(&x)),
            ("repetition_penalty", self.repetition_penalty, POSITIVE, |x| x > 0.0),
            ("encoder_repetition_penalty", self.encoder_repetition_penalty, POSITIVE, |x| x > 0.0),
            ("frequency_penalty", self.frequency_penalty, "a number", |_| true),
            ("presence_penalty", self.presence_penalty, "a number", |_| true),
            ("dry_multiplier", self.dry_multiplier, FROM_ZERO, |x| x >= 0.0),
            ("dry_base", self.dry_base, "a number from 1", |x| x >= 1.0),
            ("xtc_probability", self.xtc_probability, SHARE, share),
            ("xtc_threshold", self.xtc_threshold, SHARE, share),
            ("mirostat_tau", self.mirostat_tau, FROM_ZERO, |x| x >= 0.0),
            ("mirostat_eta", self.mirostat_eta, FROM_ZERO, |x| x >= 0.0),
            ("dynatemp_range", self.dynatemp_range, FROM_ZERO, |x| x >= 0.0),
            ("dynatemp_exponent", self.dynatemp_exponent, FROM_ZERO, |x| x >= 0.0),
            ("top_n_sigma", self.top_n_sigma, "a number", |_| true),
            (
                "exponential_decay_length_penalty",
                self.exponential_decay_length_penalty.map(|(_, factor)| factor),
                "a number of tokens and a factor above 0",
                |x| x > 0.0,
            ),
            (
                "watermarking_config",
                self.watermarking_config.map(|w| w.greenlist_ratio),
                "a pattern whose `greenlist_ratio` is from 0 to 1",
                share,
            ),
        ];
        for (setting, value, expected, allowed) in numbers {
            if let Some(value) = value.filter(|&x| !(x.is_finite() && allowed(x))) {
                return Err(GenerateError::setting(setting, expected, value));
            }
        }
        let most = "a number from 1 to 256";
        let guesses = "a number from 1 to 64";
        let counts = [
            ("prompt_lookup_num_tokens", self.prompt_lookup_num_tokens, 64, guesses),
            ("max_matching_ngram_size", self.max_matching_ngram_size, 64, guesses),
            ("num_assistant_tokens", self.num_assistant_tokens, 64, guesses),
            ("max_new_tokens", self.max_new_tokens, usize::MAX, "at least 1"),
            ("max_length", self.max_length, usize::MAX, "at least 1"),
            ("num_beams", self.num_beams, Self::MOST_SEQUENCES, most),
            ("num_return_sequences", self.num_return_sequences, Self::MOST_SEQUENCES, most),
            ("num_beam_groups", self.num_beam_groups, Self::MOST_SEQUENCES, most),
        ];
        for (setting, value, largest, expected) in counts {
            if let Some(value) = value.filter(|value| !(1..=largest).contains(value)) {
                return Err(GenerateError::setting(setting, expected, value));
            }
        }
        if let Some(version) = self.mirostat.filter(|&version| version > 2) {
            return Err(GenerateError::setting("mirostat", "0, 1 or 2", version));
        }
        Ok(())
    }

    /// Checks lists, and settings that exclude each other.
    fn check_choices(&self) -> Result<(), GenerateError> {
        let empty = |phrases: &[Vec<u32>]| phrases.iter().any(Vec::is_empty);
        let forced_empty = |words: &ForcedWords| words.phrases().is_empty() || empty(words.phrases());
        if self.bad_words.iter().flatten().any(String::is_empty) {
            return Err(GenerateError::setting(
                "bad_words",
                "texts of at least one character",
                "an empty one",
            ));
        }
        if self.bad_words_ids.as_deref().is_some_and(empty) {
            return Err(GenerateError::setting(
                "bad_words_ids",
                "phrases of at least one token",
                "an empty one",
            ));
        }
        if self.sequence_bias.iter().flatten().any(|(phrase, bias)| phrase.is_empty() || bias.is_nan()) {
            return Err(GenerateError::setting(
                "sequence_bias",
                "phrases with numbers",
                "an empty one, or no number",
            ));
        }
        if self
            .force_words_ids
            .as_ref()
            .is_some_and(|words| words.is_empty() || words.iter().any(forced_empty))
        {
            return Err(GenerateError::setting(
                "force_words_ids",
                "phrases of at least one token",
                "an empty one",
            ));
        }
        let begins_another = |words: &ForcedWords| {
            let phrases = words.phrases();
            let begins =
                |index: usize, other: usize| other != index && phrases[other].starts_with(&phrases[index]);
            (0..phrases.len()).any(|index| (0..phrases.len()).any(|other| begins(index, other)))
        };
        if self.force_words_ids.iter().flatten().any(begins_another) {
            let expected = "alternatives none of which begins with another";
            return Err(GenerateError::setting("force_words_ids", expected, "one that does"));
        }
        let groups = self.groups();
        if !self.beams().is_multiple_of(groups) {
            return Err(GenerateError::setting("num_beam_groups", "a divisor of `num_beams`", groups));
        }
        if groups > 1 && self.beams() > 1 && self.diversity_penalty.unwrap_or(0.0) == 0.0 {
            let expected = "1 without a `diversity_penalty` above 0, for the groups would all be the same";
            return Err(GenerateError::setting("num_beam_groups", expected, groups));
        }
        if self.watermarking_config.is_some_and(|watermark| watermark.context_width == 0) {
            let expected = "a pattern whose `context_width` is at least 1";
            return Err(GenerateError::setting("watermarking_config", expected, 0));
        }
        if let (Some(suppressed), Some(forced)) = (&self.suppress_tokens, &self.forced_eos_token_id)
            && !forced.is_empty()
            && forced.iter().all(|id| suppressed.contains(id))
        {
            return Err(GenerateError::Contradiction("forced_eos_token_id", "suppress_tokens"));
        }
        if let Some(top_k) = self.top_k.filter(|&k| self.contrasts() && k > Self::MOST_SEQUENCES) {
            let expected = "at most 256 with `penalty_alpha`, for all candidates are held in memory at once";
            return Err(GenerateError::setting("top_k", expected, top_k));
        }
        let structured = self.structured_outputs.is_some();
        let contradictions = [
            (groups > 1 && self.samples(), "num_beam_groups", "do_sample"),
            (self.force_words_ids.is_some() && self.samples(), "force_words_ids", "do_sample"),
            (self.force_words_ids.is_some() && groups > 1, "force_words_ids", "num_beam_groups"),
            (self.beams() > 1 && self.mirostat.is_some_and(|version| version > 0), "mirostat", "num_beams"),
            (self.beams() > 1 && self.dola_layers.is_some(), "dola_layers", "num_beams"),
            (self.beams() > 1 && self.guides(), "guidance_scale", "num_beams"),
            (self.beams() > 1 && self.overflow == Some(Overflow::Slide), "overflow", "num_beams"),
            (self.contrasts() && self.guides(), "guidance_scale", "penalty_alpha"),
            (self.contrasts() && self.dola_layers.is_some(), "dola_layers", "penalty_alpha"),
            (self.contrasts() && self.overflow == Some(Overflow::Slide), "overflow", "penalty_alpha"),
            (self.guides() && self.dola_layers.is_some(), "dola_layers", "guidance_scale"),
            (self.guides() && self.overflow == Some(Overflow::Slide), "overflow", "guidance_scale"),
            (structured && self.beams() > 1, "structured_outputs", "num_beams"),
            (structured && self.contrasts(), "structured_outputs", "penalty_alpha"),
            // Its threshold for what is likely enough would rule out what the structure leaves, ends above all.
            (structured && self.dola_layers.is_some(), "structured_outputs", "dola_layers"),
            // These let in tokens whatever the structure says.
            (structured && self.forced_bos_token_id.is_some(), "structured_outputs", "forced_bos_token_id"),
            (structured && self.forced_eos_token_id.is_some(), "structured_outputs", "forced_eos_token_id"),
            (
                structured && self.remove_invalid_values == Some(true),
                "structured_outputs",
                "remove_invalid_values",
            ),
        ];
        match contradictions.into_iter().find(|&(wrong, ..)| wrong) {
            Some((_, one, other)) => Err(GenerateError::Contradiction(one, other)),
            None => Ok(()),
        }
    }

    /// Lists the settings that change nothing, beside these others.
    #[must_use]
    pub fn without_effect(&self) -> Vec<Idle> {
        let sampling = "it says from which tokens to draw, and nothing is drawn";
        let beams = "it is a matter of beams, and there is one";
        let (samples, contrasts, one) = (self.samples(), self.contrasts(), self.beams() == 1);
        let greedy = !samples;
        let set = |value: Option<f64>, neutral: f64| value.is_some_and(|value| value != neutral);
        let mirostat = self.mirostat.is_some_and(|version| version > 0);
        let no_dry = !set(self.dry_multiplier, 0.0);
        // What `samplers` gives an order to: penalties, what draws are restricted by, and what mirostat replaces of it.
        let penalties = [
            ("repetition_penalty", set(self.repetition_penalty, 1.0), SamplerName::Penalties),
            ("frequency_penalty", set(self.frequency_penalty, 0.0), SamplerName::Penalties),
            ("presence_penalty", set(self.presence_penalty, 0.0), SamplerName::Penalties),
            ("dry_multiplier", set(self.dry_multiplier, 0.0), SamplerName::Dry),
        ];
        let tempering = [
            ("temperature", self.temperature.is_some_and(|t| t != 1.0 && t != 0.0), SamplerName::Temperature),
            ("dynatemp_range", set(self.dynatemp_range, 0.0), SamplerName::Temperature),
        ];
        let truncating = [
            ("top_k", !contrasts && self.top_k.is_some_and(|k| k != 50 && k != 0), SamplerName::TopK),
            ("top_p", set(self.top_p, 1.0), SamplerName::TopP),
            ("min_p", set(self.min_p, 0.0), SamplerName::MinP),
            ("top_h", self.top_h.is_some(), SamplerName::TopH),
            ("typical_p", set(self.typical_p, 1.0), SamplerName::TypP),
            ("epsilon_cutoff", set(self.epsilon_cutoff, 0.0), SamplerName::EpsilonCutoff),
            ("eta_cutoff", set(self.eta_cutoff, 0.0), SamplerName::EtaCutoff),
            ("xtc_probability", set(self.xtc_probability, 0.0), SamplerName::Xtc),
            ("top_n_sigma", self.top_n_sigma.is_some_and(|n| n > 0.0), SamplerName::TopNSigma),
        ];
        let left_out = |name: SamplerName| {
            let order = self.samplers.as_ref().filter(|_| samples);
            order
                .is_some_and(|order| !order.contains(&name))
                .then_some("the list of `samplers` leaves it out")
        };
        let draws = |name| if greedy { Some(sampling) } else { left_out(name) };
        let replaced = (mirostat && samples).then_some("`mirostat` says how many tokens to draw from");
        let ordered = (penalties.into_iter().map(|(setting, set, name)| (setting, set, left_out(name))))
            .chain(tempering.into_iter().map(|(setting, set, name)| (setting, set, draws(name))))
            .chain(
                truncating.into_iter().map(|(setting, set, name)| (setting, set, replaced.or(draws(name)))),
            )
            .filter_map(|(setting, set, reason)| Some(Idle { setting, reason: reason.filter(|_| set)? }));
        let idle = [
            ("mirostat", greedy && mirostat, sampling),
            ("samplers", greedy && self.samplers.is_some(), sampling),
            ("rng", greedy && self.rng == Some(Rng::Torch), sampling),
            ("early_stopping", one && self.early_stopping.is_some_and(|e| e != EarlyStopping::False), beams),
            ("length_penalty", one && set(self.length_penalty, 1.0), beams),
            ("num_beam_groups", one && self.num_beam_groups.is_some_and(|n| n > 1), beams),
            (
                "diversity_penalty",
                self.groups() == 1 && set(self.diversity_penalty, 0.0),
                "it is a matter of groups of beams, and there is one (`num_beam_groups`)",
            ),
            (
                "force_words_ids",
                one && self.force_words_ids.is_some(),
                "it takes several beams (`num_beams`)",
            ),
            (
                "penalty_alpha",
                !contrasts && self.penalty_alpha.is_some_and(|alpha| alpha > 0.0),
                "contrastive search takes `top_k` above 1, one beam and no sampling",
            ),
            (
                "xtc_threshold",
                self.xtc_threshold.is_some() && !set(self.xtc_probability, 0.0),
                "`xtc_probability` is 0",
            ),
            ("dry_base", self.dry_base.is_some() && no_dry, "`dry_multiplier` is 0"),
            ("dry_allowed_length", self.dry_allowed_length.is_some() && no_dry, "`dry_multiplier` is 0"),
            ("dry_penalty_last_n", self.dry_penalty_last_n.is_some() && no_dry, "`dry_multiplier` is 0"),
            (
                "dry_sequence_breakers",
                self.dry_sequence_breakers.is_some() && no_dry,
                "`dry_multiplier` is 0",
            ),
            (
                "dynatemp_exponent",
                self.dynatemp_exponent.is_some() && !set(self.dynatemp_range, 0.0),
                "`dynatemp_range` is 0",
            ),
            (
                "min_length",
                self.min_length.is_some_and(|n| n > 0) && self.min_new_tokens.is_some(),
                "`min_new_tokens` stands in for it",
            ),
            (
                "include_stop_str_in_output",
                self.include_stop_str_in_output == Some(true)
                    && self.stop_strings.as_ref().is_none_or(|texts| texts.iter().all(String::is_empty)),
                "there is no stop string",
            ),
            (
                "pad_token_id",
                self.pad_token_id.is_some() && self.groups() == 1,
                "no text is padded; it is a matter of groups of beams (`num_beam_groups`)",
            ),
            (
                "max_matching_ngram_size",
                self.max_matching_ngram_size.is_some() && self.prompt_lookup_num_tokens.is_none(),
                "nothing is looked up (`prompt_lookup_num_tokens`)",
            ),
            ("mirostat_tau", self.mirostat_tau.is_some() && !mirostat, "`mirostat` is 0"),
            ("mirostat_eta", self.mirostat_eta.is_some() && !mirostat, "`mirostat` is 0"),
        ];
        let idle = idle.into_iter().filter(|&(_, idle, _)| idle);
        ordered.chain(idle.map(|(setting, _, reason)| Idle { setting, reason })).collect()
    }
}

fn share(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}
