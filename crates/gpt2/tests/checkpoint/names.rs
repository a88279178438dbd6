//! Names with what wrappers of PyTorch add, and heads for something else than language.

use gpt2::checkpoint::{Checkpoint, CheckpointError, Remark, expected_tensors};
use gpt2::config::Config;

use crate::{Tensors, check, f32s, model, serialize, tiny, with_prefix};

#[test]
fn names_that_wrappers_have_changed_load_and_it_is_said() {
    let config = Config { tie_word_embeddings: false, ..tiny() };
    let bare = model(&config);
    let renamed = |tensors: &Tensors, rename: &dyn Fn(&str) -> String| -> Tensors {
        tensors.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
    };
    let before = |start: &'static str| move |name: &str| format!("{start}{name}");
    for (ignored, rename) in [
        ("`_orig_mod.`", &before("_orig_mod.") as &dyn Fn(&str) -> String),
        ("`module.`", &before("module.")),
        ("`_orig_mod.` and `module.`", &before("module._orig_mod.")),
        ("`_orig_mod.` and `module.`", &before("_orig_mod.module.")),
        ("`model.`", &before("model.")),
        ("`_orig_mod.` and `model.`", &before("_orig_mod.model.")),
        // Parts of the model may be wrapped, too.
        ("`_orig_mod.`", &|name| name.replace("h.1.", "h.1._orig_mod.")),
        ("`module.`", &|name| {
            name.replace("transformer.", "transformer.module.").replace("ln_f", "module.ln_f")
        }),
        ("`_checkpoint_wrapped_module.`", &|name| name.replace("h.0.", "h.0._checkpoint_wrapped_module.")),
    ] {
        for tensors in [bare.clone(), with_prefix(bare.clone())] {
            let plain = Checkpoint::from_bytes(serialize(&tensors)).unwrap();
            assert!(plain.remarks().is_empty());
            let checkpoint = Checkpoint::from_bytes(serialize(&renamed(&tensors, rename))).unwrap();
            checkpoint.check(&config).unwrap();
            for (name, shape) in expected_tensors(&config) {
                let [found, expected] = [&checkpoint, &plain].map(|it| it.tensor(&name, &shape).unwrap());
                assert_eq!(found.bytes, expected.bytes, "{name}");
                assert_eq!(found.name, rename(expected.name));
            }
            assert!(checkpoint.embeddings(&config).unwrap().lm_head.is_some());
            let remarks: Vec<_> = checkpoint.remarks().iter().map(ToString::to_string).collect();
            assert_eq!(remarks, [format!("ignoring {ignored} in the tensor names of `<memory>`")]);
        }
    }
}

#[test]
fn names_that_differ_otherwise_are_refused_as_they_are_in_the_file() {
    let wrapped = |name: &str| format!("_orig_mod.{name}");
    let tensors: Tensors =
        model(&tiny()).into_iter().map(|(name, tensor)| (wrapped(&name), tensor)).collect();
    let error = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        check(&tensors, &tiny()).unwrap_err()
    };
    let missing = error(&|tensors| drop(tensors.remove("_orig_mod.h.0.ln_1.bias")));
    assert!(
        matches!(&missing, CheckpointError::Missing { name, .. } if name == "h.0.ln_1.bias"),
        "{missing}"
    );
    let extra = error(&|tensors| drop(tensors.insert("_orig_mod.extra".into(), f32s(&[1]))));
    assert!(matches!(&extra, CheckpointError::Unknown { name, .. } if name == "_orig_mod.extra"), "{extra}");
    let twice = error(&|tensors| drop(tensors.insert("ln_f.bias".into(), f32s(&[8]))));
    assert!(twice.to_string().starts_with("`_orig_mod.ln_f.bias` and `ln_f.bias` in `"), "{twice}");
    // Another model beside it: nothing tells which of the two is meant.
    let mut two: Tensors =
        model(&tiny()).into_iter().map(|(name, it)| (format!("decoder.{name}"), it)).collect();
    two.insert("encoder.wte.weight".into(), f32s(&[11, 8]));
    assert!(matches!(check(&two, &tiny()), Err(CheckpointError::Missing { .. })));
}

#[test]
fn heads_beside_a_language_model_are_left_out_and_it_is_said() {
    for (prefix, class) in
        [("multiple_choice_head.", "GPT2DoubleHeadsModel"), ("v_head.", "AutoModelForCausalLMWithValueHead")]
    {
        let mut tensors = with_prefix(model(&tiny()));
        tensors.insert("lm_head.weight".into(), f32s(&[11, 8]));
        let head = |part: &str| format!("{prefix}summary.{part}");
        tensors.insert(head("bias"), f32s(&[1]));
        tensors.insert(head("weight"), f32s(&[1, 8]));
        let checkpoint = Checkpoint::from_bytes(serialize(&tensors)).unwrap();
        checkpoint.check(&tiny()).unwrap();
        assert!(checkpoint.embeddings(&tiny()).unwrap().lm_head.is_none());
        let names = vec![head("bias"), head("weight")];
        let expected = Remark::LeftOut { path: "<memory>".into(), head: prefix, names, class };
        assert_eq!(checkpoint.remarks(), [expected]);
        let message = format!("ignoring `{prefix}*` in `<memory>`: the second head of a `{class}`");
        assert_eq!(checkpoint.remarks()[0].to_string(), message);
        // A model that was wrapped, and the head was not.
        let wrapped: Tensors = tensors
            .into_iter()
            .map(
                |(name, it)| {
                    if name.contains("summary") { (name, it) } else { (format!("model.{name}"), it) }
                },
            )
            .collect();
        let checkpoint = Checkpoint::from_bytes(serialize(&wrapped)).unwrap();
        checkpoint.check(&tiny()).unwrap();
        assert_eq!(checkpoint.remarks().len(), 2);
    }
}

#[test]
fn models_for_something_else_are_called_what_they_are() {
    for (name, class) in [
        ("score.weight", "GPT2ForSequenceClassification"),
        ("classifier.bias", "GPT2ForTokenClassification"),
        ("qa_outputs.weight", "GPT2ForQuestionAnswering"),
    ] {
        for prefix in ["", "module."] {
            let mut tensors: Tensors = with_prefix(model(&tiny()))
                .into_iter()
                .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
                .collect();
            tensors.insert(format!("{prefix}{name}"), f32s(&[2]));
            let message = check(&tensors, &tiny()).unwrap_err().to_string();
            assert!(message.starts_with(&format!("tensor `{prefix}{name}` in `")), "{message}");
            let end =
                format!("is the head of a `{class}`; expected a language model, such as a `GPT2LMHeadModel`");
            assert!(message.ends_with(&end), "{message}");
        }
    }
}
