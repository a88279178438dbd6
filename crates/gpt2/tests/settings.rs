//! Every setting does something, or is named as one that does not; and the ends of texts.

use std::collections::BTreeSet;
use std::path::Path;

use gpt2::generate::{
    Batch, BatchEvent, Completion, DolaHalf, DolaLayers, EarlyStopping, FinishReason, ForcedWords, Generate,
    GenerationConfig, Overflow, Rng, SPEED_ONLY, SamplerName, SeedingScheme, StructuredOutputs, Watermarking,
};
use gpt2::model::Formats;
use gpt2::pretrained::Pretrained;
use gpt2::tokenizer::{SpecialText, SpecialTokens};
use gpt2_kernels::{Cpu, Kernels, WeightFormat};
use serde_json::Value;

const END_OF_TEXT: u32 = 50_256;

fn demo() -> Pretrained {
    let formats = Formats { weights: WeightFormat::Int8, ..Formats::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    Pretrained::from_directory(folder, Cpu::new(Kernels::detect(), 2), formats).expect("the demo model")
}

fn ids(gpt2: &Pretrained, text: &str) -> Vec<u32> {
    gpt2.tokenizer.encode(text, SpecialTokens::Parse).expect("any text")
}

/// Settings of which one more makes a difference.
struct Case {
    name: &'static str,
    prompt: Vec<u32>,
    before: GenerationConfig,
    after: GenerationConfig,
}

/// The fields of settings as JSON, by name.
fn fields(config: &impl serde::Serialize) -> Vec<(String, Value)> {
    match serde_json::to_value(config).expect("plain fields") {
        Value::Object(fields) => fields.into_iter().collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn every_setting_changes_a_text_or_is_named_as_one_that_changes_its_speed_only() {
    let gpt2 = demo();
    let run = |prompt: &[u32], config: &GenerationConfig| {
        let request = gpt2.model.generate(prompt).tokenizer(&gpt2.tokenizer).config(config.clone());
        request.run().map_err(|error| error.to_string())
    };
    let prompt = ids(&gpt2, "Once upon a time");
    let default = GenerationConfig::default;
    let greedy = run(&prompt, &default()).expect("a text").remove(0);
    let (first, third) = (greedy.tokens[0], greedy.tokens[3]);
    let word = gpt2.tokenizer.decode(&[first], SpecialText::Keep).expect("a token").trim().to_owned();
    let stop = greedy.text[3..8].to_owned();

    let ending = GenerationConfig { eos_token_id: Some(vec![third]), ..default() };
    let sampled = GenerationConfig { do_sample: Some(true), seed: Some(1), top_k: Some(0), ..default() };
    let beams = GenerationConfig {
        num_beams: Some(4),
        eos_token_id: Some(vec![11, 13]),
        num_return_sequences: Some(4),
        ..default()
    };
    let groups =
        GenerationConfig { num_beam_groups: Some(2), diversity_penalty: Some(0.01), ..beams.clone() };
    let repeated = ids(&gpt2, "the sea and the ship, the sea and the ship, the sea and");
    let dry = GenerationConfig { dry_multiplier: Some(0.01), ..default() };
    let xtc = GenerationConfig { xtc_probability: Some(1.0), xtc_threshold: Some(0.01), ..sampled.clone() };
    let mirostat = GenerationConfig { mirostat: Some(2), ..sampled.clone() };
    let dynamic = GenerationConfig { dynatemp_range: Some(0.9), ..sampled.clone() };
    let ended = GenerationConfig { forced_eos_token_id: Some(vec![END_OF_TEXT]), ..default() };
    let stopped = GenerationConfig { stop_strings: Some(vec![stop.clone()]), ..default() };
    let endless = GenerationConfig { sequence_bias: Some(vec![(vec![first], f64::INFINITY)]), ..default() };
    let marked = |change: fn(&mut Watermarking)| {
        let mut watermarking = Watermarking::default();
        change(&mut watermarking);
        GenerationConfig { watermarking_config: Some(watermarking), ..default() }
    };

    let mut cases = Vec::new();
    let mut case =
        |name, prompt: &[u32], before: &GenerationConfig, change: &dyn Fn(&mut GenerationConfig)| {
            let mut after = before.clone();
            change(&mut after);
            cases.push(Case { name, prompt: prompt.to_vec(), before: before.clone(), after });
        };
    let plain = &default();
    case("max_length", &prompt, plain, &|c| c.max_length = Some(9));
    case("max_new_tokens", &prompt, plain, &|c| c.max_new_tokens = Some(9));
    case("min_length", &prompt, &ending, &|c| c.min_length = Some(12));
    case("min_new_tokens", &prompt, &ending, &|c| c.min_new_tokens = Some(12));
    case("max_time", &prompt, plain, &|c| c.max_time = Some(1e-9));
    case("stop_strings", &prompt, plain, &|c| c.stop_strings = Some(vec![stop.clone()]));
    case("include_stop_str_in_output", &prompt, &stopped, &|c| c.include_stop_str_in_output = Some(true));
    case("skip_special_tokens", &prompt, &ended, &|c| c.skip_special_tokens = Some(false));
    case("overflow", &[first; 1020], plain, &|c| c.overflow = Some(Overflow::Slide));
    case("do_sample", &prompt, plain, &|c| c.do_sample = Some(true));
    case("num_beams", &prompt, plain, &|c| c.num_beams = Some(4));
    case("early_stopping", &prompt, &beams, &|c| c.early_stopping = Some(EarlyStopping::True));
    case("length_penalty", &prompt, &beams, &|c| c.length_penalty = Some(-3.0));
    let diverse = GenerationConfig { diversity_penalty: Some(2.0), ..beams.clone() };
    case("num_beam_groups", &prompt, &diverse, &|c| c.num_beam_groups = Some(2));
    case("diversity_penalty", &prompt, &groups, &|c| c.diversity_penalty = Some(9.0));
    case("force_words_ids", &prompt, &beams, &|c| {
        c.force_words_ids = Some(vec![ForcedWords::Phrase(vec![2000])]);
    });
    let candidates = GenerationConfig { top_k: Some(4), ..default() };
    case("penalty_alpha", &prompt, &candidates, &|c| c.penalty_alpha = Some(0.6));
    case("dola_layers", &prompt, plain, &|c| c.dola_layers = Some(DolaLayers::Half(DolaHalf::Low)));
    case("guidance_scale", &prompt, plain, &|c| c.guidance_scale = Some(3.0));
    case("token_healing", &ids(&gpt2, "He said that he wou"), plain, &|c| c.token_healing = Some(true));
    case("num_return_sequences", &prompt, &sampled, &|c| c.num_return_sequences = Some(2));
    case("temperature", &prompt, &sampled, &|c| c.temperature = Some(0.3));
    case("top_k", &prompt, &sampled, &|c| c.top_k = Some(1));
    case("top_p", &prompt, &sampled, &|c| c.top_p = Some(0.1));
    case("min_p", &prompt, &sampled, &|c| c.min_p = Some(0.9));
    case("top_h", &prompt, &sampled, &|c| c.top_h = Some(0.1));
    case("typical_p", &prompt, &sampled, &|c| c.typical_p = Some(0.1));
    case("epsilon_cutoff", &prompt, &sampled, &|c| c.epsilon_cutoff = Some(0.3));
    case("eta_cutoff", &prompt, &sampled, &|c| c.eta_cutoff = Some(0.3));
    case("repetition_penalty", &prompt, plain, &|c| c.repetition_penalty = Some(3.0));
    case("encoder_repetition_penalty", &prompt, plain, &|c| c.encoder_repetition_penalty = Some(9.0));
    case("no_repeat_ngram_size", &repeated, plain, &|c| c.no_repeat_ngram_size = Some(2));
    case("encoder_no_repeat_ngram_size", &repeated, plain, &|c| c.encoder_no_repeat_ngram_size = Some(2));
    case("bad_words", &prompt, plain, &|c| c.bad_words = Some(vec![word.clone()]));
    case("bad_words_ids", &prompt, plain, &|c| c.bad_words_ids = Some(vec![vec![first]]));
    case("sequence_bias", &prompt, plain, &|c| c.sequence_bias = Some(vec![(vec![first], -50.0)]));
    case("suppress_tokens", &prompt, plain, &|c| c.suppress_tokens = Some(vec![first]));
    case("begin_suppress_tokens", &prompt, plain, &|c| c.begin_suppress_tokens = Some(vec![first]));
    case("forced_bos_token_id", &[7454], plain, &|c| c.forced_bos_token_id = Some(2000));
    case("forced_eos_token_id", &prompt, plain, &|c| c.forced_eos_token_id = Some(vec![END_OF_TEXT]));
    case("exponential_decay_length_penalty", &prompt, plain, &|c| {
        c.exponential_decay_length_penalty = Some((1, 9.0));
    });
    case("remove_invalid_values", &prompt, &endless, &|c| c.remove_invalid_values = Some(true));
    case("renormalize_logits", &prompt, plain, &|c| c.renormalize_logits = Some(true));
    case("structured_outputs", &prompt, plain, &|c| {
        c.structured_outputs = Some(StructuredOutputs::Choice(vec!["yes".to_owned()]));
    });
    case("watermarking_config", &prompt, plain, &|c| c.watermarking_config = Some(Watermarking::default()));
    case("frequency_penalty", &prompt, plain, &|c| c.frequency_penalty = Some(5.0));
    case("presence_penalty", &prompt, plain, &|c| c.presence_penalty = Some(5.0));
    case("dry_multiplier", &repeated, plain, &|c| c.dry_multiplier = Some(9.0));
    case("dry_base", &repeated, &dry, &|c| c.dry_base = Some(9.0));
    case("dry_allowed_length", &repeated, &dry, &|c| c.dry_allowed_length = Some(20));
    case("dry_penalty_last_n", &repeated, &dry, &|c| c.dry_penalty_last_n = Some(1));
    case("dry_sequence_breakers", &repeated, &dry, &|c| {
        c.dry_sequence_breakers = Some(vec![" sea".to_owned(), " ship".to_owned(), " and".to_owned()]);
    });
    case("xtc_probability", &prompt, &sampled, &|c| c.xtc_probability = Some(1.0));
    case("xtc_threshold", &prompt, &xtc, &|c| c.xtc_threshold = Some(0.4));
    case("mirostat", &prompt, &sampled, &|c| c.mirostat = Some(2));
    case("mirostat_tau", &prompt, &mirostat, &|c| c.mirostat_tau = Some(1.0));
    case("mirostat_eta", &prompt, &mirostat, &|c| c.mirostat_eta = Some(0.9));
    case("dynatemp_range", &prompt, &sampled, &|c| c.dynatemp_range = Some(0.9));
    case("dynatemp_exponent", &prompt, &dynamic, &|c| c.dynatemp_exponent = Some(3.0));
    case("top_n_sigma", &prompt, &sampled, &|c| c.top_n_sigma = Some(0.5));
    let cold = GenerationConfig { temperature: Some(0.3), ..sampled.clone() };
    case("samplers", &prompt, &cold, &|c| c.samplers = Some(vec![SamplerName::TopK]));
    case("seed", &prompt, &sampled, &|c| c.seed = Some(2));
    case("rng", &prompt, &sampled, &|c| c.rng = Some(Rng::Torch));
    case("bos_token_id", &[], plain, &|c| c.bos_token_id = Some(Some(first)));
    case("eos_token_id", &prompt, plain, &|c| c.eos_token_id = Some(vec![third]));
    // One group ends before the other, which would write a quotation mark.
    let apart = GenerationConfig {
        eos_token_id: Some(vec![13]),
        diversity_penalty: Some(9.0),
        early_stopping: Some(EarlyStopping::True),
        ..groups.clone()
    };
    case("pad_token_id", &prompt, &apart, &|c| c.pad_token_id = Some(1));
    case("watermarking_config", &prompt, &marked(|_| ()), &|c| *c = marked(|w| w.greenlist_ratio = 0.9));
    case("watermarking_config", &prompt, &marked(|_| ()), &|c| *c = marked(|w| w.bias = 20.0));
    case("watermarking_config", &prompt, &marked(|_| ()), &|c| *c = marked(|w| w.hashing_key = 7));
    case("watermarking_config", &prompt, &marked(|_| ()), &|c| {
        *c = marked(|w| w.seeding_scheme = SeedingScheme::Selfhash);
    });
    case("watermarking_config", &prompt, &marked(|w| w.seeding_scheme = SeedingScheme::Selfhash), &|c| {
        *c = marked(|w| (w.seeding_scheme, w.context_width) = (SeedingScheme::Selfhash, 4));
    });

    let mut idle = Vec::new();
    for Case { name, prompt, before, after } in &cases {
        let changed: Vec<String> = fields(before)
            .into_iter()
            .zip(fields(after))
            .filter(|(before, after)| before != after)
            .map(|(_, (name, _))| name)
            .collect();
        assert_eq!(changed, [*name], "a case is one setting");
        if run(prompt, before) == run(prompt, after) {
            idle.push(*name);
        }
        let without: Vec<&str> = after.without_effect().iter().map(|idle| idle.setting).collect();
        assert!(!without.contains(name), "`{name}` is said to have no effect");
    }
    assert!(idle.is_empty(), "without effect: {idle:?}");

    let speed: Vec<&str> = SPEED_ONLY.iter().map(|idle| idle.setting).collect();
    let known: BTreeSet<&str> = cases.iter().map(|case| case.name).chain(speed.iter().copied()).collect();
    let all = fields(&default());
    let missing: Vec<&String> =
        all.iter().map(|(name, _)| name).filter(|name| !known.contains(&***name)).collect();
    assert!(missing.is_empty(), "settings without a case: {missing:?}");
    let fast = GenerationConfig {
        prompt_lookup_num_tokens: Some(5),
        max_matching_ngram_size: Some(2),
        num_assistant_tokens: Some(3),
        ..default()
    };
    assert_eq!(run(&repeated, &fast), run(&repeated, &default()));
}

/// The texts of a request by every route that there is.
fn by_all_routes<'m>(gpt2: &'m Pretrained, request: &dyn Fn() -> Generate<'m>) -> Vec<Completion> {
    let alone = request().run().expect("a text");
    let mut pieces = vec![String::new(); alone.len()];
    for delta in request().text().expect("a text") {
        let delta = delta.expect("finite logits");
        pieces[delta.token.sequence] += &delta.text;
    }
    let texts: Vec<String> = alone.iter().map(|completion| completion.text.clone()).collect();
    assert_eq!(pieces, texts, "the pieces make up the text");
    let lookup = |config: &mut GenerationConfig| config.prompt_lookup_num_tokens = Some(4);
    if request().with(lookup).check().is_ok() {
        assert_eq!(request().with(lookup).run().expect("a text"), alone);
        assert_eq!(request().assistant(&gpt2.model).run().expect("a text"), alone);
    }
    let mut batch = Batch::new(&gpt2.model, 4);
    batch.push(request());
    batch.push(gpt2.generate("In a village").expect("a text").max_new_tokens(3));
    for event in batch {
        if let BatchEvent::Finished { request: 0, result, .. } = event {
            assert_eq!(result.expect("a text"), alone);
        }
    }
    alone
}

#[test]
fn a_stop_string_is_found_in_special_tokens_and_shown_when_it_is_asked_for() {
    let gpt2 = demo();
    // The end-of-text token comes third, and ends nothing.
    let free = gpt2.generate("Once upon a time").expect("a text").max_new_tokens(2).run().expect("a text");
    let [one, two] = [free[0].tokens[0], free[0].tokens[1]];
    let bias = [(vec![one], 1e4), (vec![one, two], 1e5), (vec![two, END_OF_TEXT], 1e5)];
    let before = free[0].text.clone();
    let last = before.chars().last().expect("a text");
    for beams in [1, 3] {
        let texts = |stop: &str, include: Option<bool>, skip: Option<bool>| {
            let request = || {
                gpt2.generate("Once upon a time").expect("a text").num_beams(beams).max_new_tokens(6).with(
                    |c| {
                        c.stop_strings = Some(vec![stop.to_owned()]);
                        (c.include_stop_str_in_output, c.skip_special_tokens) = (include, skip);
                        c.eos_token_id = Some(Vec::new());
                        c.sequence_bias = Some(bias.to_vec());
                    },
                )
            };
            let text = by_all_routes(&gpt2, &request).remove(0);
            (text.text, text.finish, text.tokens.len())
        };
        let stopped = |text: String| (text, Some(FinishReason::Stop), 3);
        let shown = |end: &str| format!("{before}{end}");
        for (stop, cut, skipped, kept) in [
            ("<|endoftext|>", shown(""), shown(""), shown("<|endoftext|>")),
            ("oft", shown("<|end"), shown(""), shown("<|endoft")),
        ] {
            assert_eq!(texts(stop, None, None), stopped(shown("")), "{stop}");
            assert_eq!(texts(stop, None, Some(false)), stopped(cut), "{stop}");
            assert_eq!(texts(stop, Some(true), None), stopped(skipped), "{stop}");
            assert_eq!(texts(stop, Some(true), Some(false)), stopped(kept), "{stop}");
        }
        let across = format!("{last}<|endoftext|>");
        let cut = before[..before.len() - last.len_utf8()].to_owned();
        assert_eq!(texts(&across, None, None), stopped(cut.clone()));
        assert_eq!(texts(&across, None, Some(false)), stopped(cut));
        assert_eq!(texts(&across, Some(true), None), stopped(before.clone()));
        assert_eq!(texts(&across, Some(true), Some(false)), stopped(shown("<|endoftext|>")));
    }
}

#[test]
fn the_text_ends_with_the_stop_string_that_is_included() {
    let gpt2 = demo();
    type Change = fn(&mut GenerationConfig);
    let changes: [Change; 4] = [
        |_| (),
        |config| {
            (config.do_sample, config.seed, config.num_return_sequences) = (Some(true), Some(3), Some(3))
        },
        |config| (config.num_beams, config.num_return_sequences) = (Some(3), Some(3)),
        |config| (config.penalty_alpha, config.top_k) = (Some(0.6), Some(4)),
    ];
    for change in changes {
        let request = |include: bool| {
            let request = gpt2.generate("Once upon a time").expect("a text").max_new_tokens(40).with(change);
            request.stop(" the").stop("and").with(|config| config.include_stop_str_in_output = Some(include))
        };
        let without = by_all_routes(&gpt2, &|| request(false));
        let with = by_all_routes(&gpt2, &|| request(true));
        let mut stopped = 0;
        for (without, with) in without.iter().zip(&with) {
            assert_eq!((&without.tokens, without.finish), (&with.tokens, with.finish));
            let found = with.text.strip_prefix(&without.text).expect("the same text");
            match with.finish {
                Some(FinishReason::Stop) => assert!([" the", "and"].contains(&found), "{found:?}"),
                _ => assert_eq!(found, ""),
            }
            stopped += usize::from(with.finish == Some(FinishReason::Stop));
        }
        assert!(stopped > 0, "no stop string came up");
    }
}

#[test]
fn an_end_token_is_shown_with_the_special_tokens() {
    let gpt2 = demo();
    let text = |skip: Option<bool>, eos: u32| {
        let request = || {
            gpt2.generate("Once upon a time").expect("a text").max_new_tokens(4).with(|config| {
                config.skip_special_tokens = skip;
                config.eos_token_id = Some(vec![eos]);
                config.forced_eos_token_id = Some(vec![eos]);
            })
        };
        by_all_routes(&gpt2, &request).remove(0)
    };
    for eos in [END_OF_TEXT, 13] {
        let (hidden, shown) = (text(None, eos), text(Some(false), eos));
        assert_eq!((&hidden.tokens, hidden.finish), (&shown.tokens, Some(FinishReason::Eos)));
        assert_eq!(hidden, text(Some(true), eos));
        assert_eq!(shown.text, gpt2.tokenizer.decode(&shown.tokens, SpecialText::Keep).expect("tokens"));
        let before = &hidden.tokens[..hidden.tokens.len() - 1];
        assert_eq!(hidden.text, gpt2.tokenizer.decode(before, SpecialText::Keep).expect("tokens"));
    }
}

#[test]
fn a_bad_word_does_not_come_up_in_any_pieces() {
    let gpt2 = demo();
    let pieces = [266, 292]; // " w" and "as"
    assert_eq!(gpt2.tokenizer.decode(&pieces, SpecialText::Keep).expect("tokens"), " was");
    // The model would rather write it so than in any other way.
    let request = |words: &[&str], change: fn(&mut GenerationConfig)| {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let request = gpt2.generate("The old man").expect("a text").max_new_tokens(4).with(change);
        request.with(|config| {
            config.sequence_bias = Some(vec![(vec![pieces[0]], 50.0), (pieces.to_vec(), 500.0)]);
            config.bad_words = Some(words).filter(|words| !words.is_empty());
        })
    };
    type Change = fn(&mut GenerationConfig);
    let changes: [Change; 3] = [
        |_| (),
        |config| {
            (config.do_sample, config.seed, config.num_return_sequences) = (Some(true), Some(3), Some(2))
        },
        |config| (config.num_beams, config.num_return_sequences) = (Some(2), Some(2)),
    ];
    for change in changes {
        let free = by_all_routes(&gpt2, &|| request(&[], change));
        assert!(free[0].tokens.windows(2).any(|window| window == pieces), "{free:?}");
        for words in [&["was"][..], &[" was"], &["is", "was"]] {
            for text in by_all_routes(&gpt2, &|| request(words, change)) {
                let text = &text.text;
                assert!(!text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "was"), "{text:?}");
            }
        }
        // The beginning of another word is no end of this one.
        let longer = by_all_routes(&gpt2, &|| request(&["wasp", "a"], change));
        assert!(longer[0].text.contains(" was"), "{longer:?}");
    }
    let unread = gpt2.model.generate(&[464]).with(|config| config.bad_words = Some(vec!["a".to_owned()]));
    assert_eq!(unread.tokens().err().expect("no tokenizer").to_string(), "`bad_words` needs a tokenizer");
    let empty = GenerationConfig { bad_words: Some(vec![String::new()]), ..GenerationConfig::default() };
    assert!(empty.check().expect_err("an empty text").to_string().starts_with("`bad_words` must be"));
}
