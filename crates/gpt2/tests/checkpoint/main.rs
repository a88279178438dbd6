//! Checkpoints of every layout that must load, and files made to do harm that must not.

mod names;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use gpt2::checkpoint::{Beginning, Checkpoint, CheckpointError, Headers, expected_tensors};
use gpt2::config::Config;
use gpt2::inspect::{inspect, inspect_headers};
use safetensors::tensor::TensorView;
use tempfile::TempDir;

const MODEL: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A tensor before it is written: its type, shape and bytes.
type Tensor = (safetensors::Dtype, Vec<usize>, Vec<u8>);
type Tensors = BTreeMap<String, Tensor>;

fn tiny() -> Config {
    Config {
        vocab_size: 11,
        n_positions: 7,
        n_embd: 8,
        n_layer: 2,
        n_head: 2,
        n_inner: 12,
        ..Config::default()
    }
}

/// A tensor of numbers that differ, each a whole number of eighths, so that every type holds them exactly.
fn numbers(dtype: safetensors::Dtype, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|i| ((i % 61) as f32 - 30.0) / 8.0);
    let bytes = match dtype {
        safetensors::Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
        safetensors::Dtype::F16 => values.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
        safetensors::Dtype::BF16 => values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        safetensors::Dtype::F64 => values.flat_map(|x| f64::from(x).to_le_bytes()).collect(),
        dtype => vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8],
    };
    (dtype, shape.to_vec(), bytes)
}

fn f32s(shape: &[usize]) -> Tensor {
    numbers(safetensors::Dtype::F32, shape)
}

fn model(config: &Config) -> Tensors {
    expected_tensors(config).map(|(name, shape)| (name, f32s(&shape))).collect()
}

fn with_prefix(tensors: Tensors) -> Tensors {
    let prefixed = |(name, tensor)| match name {
        name if name == "lm_head.weight" => (name, tensor),
        name => (format!("transformer.{name}"), tensor),
    };
    tensors.into_iter().map(prefixed).collect()
}

fn serialize(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("bytes match the shape"))
    });
    safetensors::serialize(views, None).expect("tensors serialize")
}

/// A file of this header and as many bytes after it.
fn raw(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).expect("a file can be written");
    }
    dir
}

/// Writes a `model.safetensors`, opens it from disk and checks it.
fn check(tensors: &Tensors, config: &Config) -> Result<(), CheckpointError> {
    let dir = directory(&[(MODEL, &serialize(tensors))]);
    Checkpoint::open(dir.path())?.check(config)
}

/// The error of opening these bytes as the only file; it must name the file.
fn open_error(bytes: &[u8]) -> CheckpointError {
    let dir = directory(&[(MODEL, bytes)]);
    let error = Checkpoint::open(dir.path()).expect_err("a damaged file must not open");
    assert!(error.to_string().contains(MODEL), "{error}");
    error
}

/// A message with those of its causes.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
}

#[test]
fn a_git_lfs_pointer_is_called_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n";
    std::fs::write(dir.path().join("model.safetensors"), pointer).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::LfsPointer { .. }), "{error}");
}

#[test]
fn every_layout_loads_with_the_same_values() {
    let config = tiny();
    let shape = [config.n_embd, 3 * config.n_embd];
    for dtype in
        [safetensors::Dtype::F32, safetensors::Dtype::F16, safetensors::Dtype::BF16, safetensors::Dtype::F64]
    {
        let bare: Tensors =
            expected_tensors(&config).map(|(name, shape)| (name, numbers(dtype, &shape))).collect();
        for tensors in [bare.clone(), with_prefix(bare)] {
            let dir = directory(&[(MODEL, &serialize(&tensors))]);
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            checkpoint.check(&config).unwrap();
            let view = checkpoint.tensor("h.1.attn.c_attn.weight", &shape).unwrap();
            assert_eq!(view.dtype.name(), dtype.to_string());
            assert_eq!(view.shape, shape);
            let mut values = [0.0; 3];
            view.decode(59, &mut values);
            assert_eq!(values, [29.0 / 8.0, 30.0 / 8.0, -30.0 / 8.0]);
        }
    }
}

#[test]
fn doubles_are_rounded_to_the_nearest_and_it_is_said() {
    let (half, least) = (f64::from(f32::EPSILON) / 2.0, f64::MIN_POSITIVE);
    // A double, and the nearest number in single precision; of two that are as near, the one with an even last bit.
    let cases = [
        (0.1, 0.1_f32),
        (1.0 + half, 1.0),
        (1.0 + half + least, 1.0),
        (1.0 + half * 1.000_001, 1.0 + f32::EPSILON),
        (1.0 + 3.0 * half, 1.0 + 2.0 * f32::EPSILON),
        (-1e-50, -0.0),
        (1e300, f32::INFINITY),
        (-2.5, -2.5),
    ];
    let mut tensors = model(&tiny());
    let bytes = cases.iter().flat_map(|(double, _)| double.to_le_bytes()).collect();
    tensors.insert("ln_f.bias".into(), (safetensors::Dtype::F64, vec![8], bytes));
    let checkpoint = Checkpoint::from_bytes(serialize(&tensors)).unwrap();
    checkpoint.check(&tiny()).unwrap();
    let mut values = [0.0; 8];
    checkpoint.tensor("ln_f.bias", &[8]).unwrap().decode(0, &mut values);
    assert_eq!(values.map(f32::to_bits), cases.map(|(_, single)| single.to_bits()));
    let remarks: Vec<_> = checkpoint.remarks().iter().map(ToString::to_string).collect();
    assert_eq!(remarks, ["rounding 1 F64 tensor of `<memory>` to F32"]);
}

#[test]
fn embedded_bytes_load_as_a_file_does() {
    let checkpoint = Checkpoint::from_bytes(serialize(&model(&tiny()))).unwrap();
    checkpoint.check(&tiny()).unwrap();
    checkpoint.release(checkpoint.tensor("ln_f.bias", &[8]).unwrap().bytes);
    let error = Checkpoint::from_bytes(&b"short"[..]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`<memory>` is truncated or not a safetensors file: expected 8 bytes or more, found 5"
    );
}

#[test]
fn released_bytes_can_be_read_again() {
    let dir = directory(&[(MODEL, &serialize(&model(&tiny())))]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    for (name, shape) in expected_tensors(&tiny()) {
        let view = checkpoint.tensor(&name, &shape).unwrap();
        let before = view.bytes.to_vec();
        checkpoint.release(view.bytes);
        checkpoint.release(&view.bytes[view.bytes.len() / 2..]);
        checkpoint.release(&[]);
        checkpoint.release(&before);
        assert_eq!(view.bytes, before, "{name}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn released_bytes_take_no_memory() {
    let dir = directory(&[(MODEL, &serialize(&Tensors::from([("wte.weight".into(), f32s(&[1024, 1024]))])))]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    // The resident KiB of the map, from a list of `start-end … path` lines, each followed by lines `Rss: 4 kB`.
    let resident = || -> u64 {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let path = dir.path().join(MODEL).canonicalize().unwrap();
        let map = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
        let mut sizes =
            map.filter_map(|line| line.strip_prefix("Rss:")?.strip_suffix("kB")?.trim().parse().ok());
        sizes.next().unwrap()
    };
    let view = checkpoint.tensor("wte.weight", &[1024, 1024]).unwrap();
    // Bytes behind a shared reference are constant to the compiler, which would put off reading them.
    let copy = std::hint::black_box(view.bytes.to_vec());
    assert!(resident() >= 4096, "{} KiB", resident());
    checkpoint.release(view.bytes);
    assert_eq!(resident(), 0);
    assert_eq!(view.bytes, copy);
}

#[test]
fn weights_that_are_not_numbers_load() {
    let mut tensors = model(&tiny());
    tensors
        .insert("ln_f.bias".into(), (safetensors::Dtype::F32, vec![8], [f32::NAN.to_le_bytes(); 8].concat()));
    let checkpoint = Checkpoint::from_bytes(serialize(&tensors)).unwrap();
    checkpoint.check(&tiny()).unwrap();
    let mut values = [0.0; 8];
    checkpoint.tensor("ln_f.bias", &[8]).unwrap().decode(0, &mut values);
    assert!(values.iter().all(|x| x.is_nan()));
}

#[test]
#[should_panic = "decode: `ln_f.bias` has 8 values, 2 from 7 on wanted"]
fn decoding_past_the_end_panics() {
    let checkpoint = Checkpoint::from_bytes(serialize(&model(&tiny()))).unwrap();
    checkpoint.tensor("ln_f.bias", &[8]).unwrap().decode(7, &mut [0.0; 2]);
}

#[test]
fn causal_masks_of_existing_layers_are_skipped() {
    let mut tensors = model(&tiny());
    for layer in 0..2 {
        tensors.insert(format!("h.{layer}.attn.bias"), numbers(safetensors::Dtype::U8, &[1, 1, 7, 7]));
        tensors.insert(format!("h.{layer}.attn.masked_bias"), f32s(&[]));
    }
    check(&tensors, &tiny()).unwrap();
    check(&with_prefix(tensors), &tiny()).unwrap();
}

#[test]
fn any_other_tensor_is_one_too_many() {
    for name in [
        "h.2.attn.bias",
        "h.2.ln_1.weight",
        "h.0.attn.c_attn.bias_",
        "h.0.crossattention.bias",
        "lm_head.bias",
        "score",
    ] {
        let mut tensors = model(&tiny());
        tensors.insert(name.into(), f32s(&[2]));
        let error = check(&tensors, &tiny()).unwrap_err();
        assert!(matches!(&error, CheckpointError::Unknown { name: found, .. } if found == name), "{error}");
    }
    let mut tensors = with_prefix(model(&tiny()));
    tensors.insert("transformer.lm_head.weight".into(), f32s(&[11, 8]));
    assert!(matches!(check(&tensors, &tiny()), Err(CheckpointError::Unknown { .. })));
}

#[test]
fn every_missing_tensor_is_named_with_its_shape() {
    let config = Config { tie_word_embeddings: false, ..tiny() };
    for (name, shape) in expected_tensors(&config) {
        let mut tensors = model(&config);
        tensors.remove(&name);
        match check(&tensors, &config).unwrap_err() {
            CheckpointError::Missing { name: found, expected, path } => {
                assert_eq!((found, expected), (name, shape));
                assert!(path.ends_with(MODEL));
            }
            error => panic!("{error}"),
        }
    }
}

#[test]
fn a_wrong_shape_is_named_even_if_the_size_is_right() {
    let mut tensors = model(&tiny());
    tensors.insert("h.1.mlp.c_fc.weight".into(), f32s(&[12, 8]));
    let message = check(&tensors, &tiny()).unwrap_err().to_string();
    assert!(message.starts_with("tensor `h.1.mlp.c_fc.weight` in `"), "{message}");
    assert!(message.ends_with("`: expected shape [8, 12], found [12, 8]"), "{message}");
}

#[test]
fn an_unsupported_type_is_named() {
    for dtype in [safetensors::Dtype::I64, safetensors::Dtype::I8, safetensors::Dtype::F8_E4M3] {
        let mut tensors = model(&tiny());
        tensors.insert("ln_f.weight".into(), numbers(dtype, &[8]));
        let message = check(&tensors, &tiny()).unwrap_err().to_string();
        assert!(message.ends_with(&format!("`: expected F32, F16, BF16 or F64, found {dtype}")), "{message}");
    }
}

#[test]
fn a_prefix_on_some_tensors_only_is_an_error() {
    let mut tensors = with_prefix(model(&tiny()));
    let bias = tensors.remove("transformer.ln_f.bias").unwrap();
    tensors.insert("ln_f.bias".into(), bias);
    let error = check(&tensors, &tiny()).unwrap_err();
    assert!(matches!(&error, CheckpointError::MixedPrefix { bare, .. } if bare == "ln_f.bias"), "{error}");
}

#[test]
fn a_head_is_tied_when_transformers_ties_it() {
    let shape = [11, 8];
    let same = f32s(&shape);
    let mut other = same.clone();
    other.2[0] ^= 1;
    let untied = Config { tie_word_embeddings: false, ..tiny() };
    // Configuration, head in the file, whether `wte` is there too; then whether the head is a matrix of its own.
    for (config, head, wte, own) in [
        (tiny(), None, true, false),
        (tiny(), Some(&same), true, false),
        (tiny(), Some(&other), true, true),
        (tiny(), Some(&other), false, false),
        (untied.clone(), Some(&same), true, true),
    ] {
        let mut tensors = model(&tiny());
        if let Some(head) = head {
            tensors.insert("lm_head.weight".into(), head.clone());
        }
        if !wte {
            tensors.remove("wte.weight");
        }
        for tensors in [tensors.clone(), with_prefix(tensors)] {
            let dir = directory(&[(MODEL, &serialize(&tensors))]);
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            checkpoint.check(&config).unwrap();
            let embeddings = checkpoint.embeddings(&config).unwrap();
            assert_eq!(
                embeddings.lm_head.map(|head| head.bytes),
                head.filter(|_| own).map(|head| &head.2[..])
            );
            let expected = if wte { &same } else { &other };
            assert_eq!(embeddings.wte.bytes, expected.2);
        }
    }
    let mut tensors = model(&untied);
    tensors.remove("wte.weight");
    assert!(matches!(check(&tensors, &untied), Err(CheckpointError::Missing { .. })));
    tensors.insert("wte.weight".into(), same);
    tensors.insert("lm_head.weight".into(), f32s(&[12, 8]));
    assert!(matches!(check(&tensors, &tiny()), Err(CheckpointError::Shape { .. })));
}

#[test]
fn a_file_cut_anywhere_or_too_long_does_not_open() {
    let bytes = serialize(&model(&tiny()));
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let lengths = (0..header).step_by(97).chain([7, 8, header - 1, header, header + 1, bytes.len() - 1]);
    for length in lengths {
        let error = open_error(&bytes[..length]);
        assert_eq!(matches!(error, CheckpointError::Truncated { .. }), length < header, "{length}: {error}");
        assert_eq!(matches!(error, CheckpointError::Length { .. }), length >= header, "{length}: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(open_error(&longer), CheckpointError::Length { .. }));
}

#[test]
fn a_huge_header_length_is_an_error_and_no_allocation() {
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, 100_000_001] {
        let error = open_error(&[&length.to_le_bytes()[..], b"{}"].concat());
        assert!(matches!(error, CheckpointError::TooLong { found, .. } if found == length), "{error}");
    }
    let error = open_error(&[&99_999_999_u64.to_le_bytes()[..], b"{}"].concat());
    assert!(matches!(error, CheckpointError::Truncated { expected: 100_000_007, found: 10, .. }), "{error}");
}

#[test]
fn sizes_that_a_server_claims_may_be_as_large_as_numbers_are() {
    // The beginning of a file with tensors of so many bytes together.
    let beginning = |name: &str, length: u64, size: u64| {
        const PART: usize = 1 << 60;
        let tensors = (0..length).step_by(PART).enumerate().map(|(i, start)| {
            let end = length.min(start.saturating_add(PART as u64));
            let shape = end - start;
            format!(r#""multiple_choice_head.{name}{i}": {{"dtype": "U8", "shape": [{shape}], "data_offsets": [{start},{end}]}}"#)
        });
        let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
        Beginning { path: name.into(), bytes: raw(&header, 0), size }
    };
    let error = Headers::single(beginning("a", u64::MAX, u64::MAX)).expect_err("more than there can be");
    assert!(matches!(error, CheckpointError::Length { .. }), "{}", chain(&error));

    // Together, the files below have more bytes, and their tensors more values, than can be counted.
    let huge = |name: &str| {
        let length = u64::MAX - 10_000;
        let header = beginning(name, length, 0).bytes.len() as u64;
        beginning(name, length, length + header)
    };
    let bytes = serialize(&model(&tiny()));
    let small = Beginning { path: "small".into(), size: bytes.len() as u64, bytes };
    let map: BTreeMap<_, _> = model(&tiny()).into_keys().map(|name| (name, "small")).collect();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    let headers = Headers::sharded("index".as_ref(), index.as_bytes(), vec![small, huge("a"), huge("b")]);
    let headers = headers.expect("the files hold what the index names");
    assert_eq!(headers.file_bytes(), u64::MAX);
    assert!(!inspect_headers("x", &tiny(), &headers).expect("a model").verified);
}

#[test]
fn headers_that_lie_do_not_open() {
    let tensor = |name: &str, shape: &str, offsets: &str| {
        format!(r#""{name}": {{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}"#)
    };
    for (what, header, data) in [
        ("overlap", format!("{{{}, {}}}", tensor("a", "[2]", "[0,8]"), tensor("b", "[2]", "[4,12]")), 12),
        ("hole", format!("{{{}, {}}}", tensor("a", "[1]", "[0,4]"), tensor("b", "[1]", "[8,12]")), 12),
        ("backwards", format!("{{{}}}", tensor("a", "[1]", "[4,0]")), 4),
        ("wrong size", format!("{{{}}}", tensor("a", "[3]", "[0,8]")), 8),
        ("product overflows", format!("{{{}}}", tensor("a", "[4294967296,4294967296]", "[0,0]")), 0),
        ("bytes overflow", format!("{{{}}}", tensor("a", "[4611686018427387904]", "[0,0]")), 0),
        ("negative length", format!("{{{}}}", tensor("a", "[-1]", "[0,4]")), 4),
        ("length beyond integers", format!("{{{}}}", tensor("a", "[1e30]", "[0,4]")), 4),
        ("offset beyond integers", format!("{{{}}}", tensor("a", "[1]", "[0,18446744073709551616]")), 4),
        ("same name, same place", format!("{{{0}, {0}}}", tensor("a", "[1]", "[0,4]")), 4),
        (
            "same name, empty twin",
            format!("{{{}, {}}}", tensor("a", "[0]", "[0,0]"), tensor("a", "[1]", "[0,4]")),
            4,
        ),
        (
            "same name, escaped",
            format!("{{{}, {}}}", tensor("a", "[1]", "[0,4]"), tensor("\\u0061", "[1]", "[0,4]")),
            4,
        ),
        ("unknown type", r#"{"a": {"dtype": "F31", "shape": [1], "data_offsets": [0,4]}}"#.into(), 4),
        ("no shape", r#"{"a": {"dtype": "F32", "data_offsets": [0,4]}}"#.into(), 4),
        ("no object", "[]".into(), 0),
        ("no JSON", "{".into(), 0),
        ("nothing", "".into(), 0),
        ("rubbish after it", "{} x".into(), 0),
        ("deep nesting", "[".repeat(100_000), 0),
    ] {
        let error = open_error(&raw(&header, data));
        assert!(matches!(error, CheckpointError::Malformed { .. }), "{what}: {error}");
        assert!(error.source().is_some(), "{what}");
    }
    // Offsets that run to the end of the address space, one tensor at a time.
    let eighth = 1_usize << 60;
    let many: Vec<_> = (0..16)
        .map(|i| {
            let end = (i + 1) as u128 * eighth as u128;
            let offsets = format!("[{},{}]", i * eighth, end.min(usize::MAX as u128));
            let shape = if i < 15 { format!("[{eighth}]") } else { format!("[{}]", eighth - 1) };
            format!(r#""t{i}": {{"dtype": "U8", "shape": {shape}, "data_offsets": {offsets}}}"#)
        })
        .collect();
    let error = open_error(&raw(&format!("{{{}}}", many.join(",")), 4));
    assert!(matches!(error, CheckpointError::Length { .. }), "{}", chain(&error));
    let not_utf8 = [&5_u64.to_le_bytes()[..], b"{\"\xff\"}"].concat();
    assert!(matches!(open_error(&not_utf8), CheckpointError::Malformed { .. }));
}

#[test]
fn a_name_that_occurs_twice_is_named() {
    let header = r#"{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                     "a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let message = chain(&open_error(&raw(header, 4)));
    assert!(message.contains("damaged header or index: `a` occurs twice"), "{message}");
}

#[test]
fn a_directory_without_weights_says_what_is_needed() {
    let dir = directory(&[("config.json", b"{}")]);
    let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(message.starts_with("found no `model.safetensors`"), "{message}");
    let dir = directory(&[("pytorch_model.bin", b"")]);
    let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(message.starts_with("found `pytorch_model.bin` but no `model.safetensors`"), "{message}");
    assert!(message.ends_with("weights are read from safetensors files only"), "{message}");
    let error = Checkpoint::open(Path::new("no such directory")).unwrap_err();
    assert!(matches!(error, CheckpointError::NoWeights { .. }), "{error}");
    let dir = directory(&[]);
    fs::create_dir(dir.path().join(MODEL)).unwrap();
    assert!(matches!(Checkpoint::open(dir.path()), Err(CheckpointError::Io { .. })));
}

/// The tiny model in two shards, and its index.
fn shards() -> (Vec<u8>, Vec<u8>, BTreeMap<String, String>) {
    let mut first = model(&tiny());
    let second = first.split_off("ln");
    let map = |tensors: &Tensors, shard: &str| -> BTreeMap<String, String> {
        tensors.keys().map(|name| (name.clone(), shard.to_owned())).collect()
    };
    let mut index = map(&first, "a.safetensors");
    index.extend(map(&second, "b.safetensors"));
    (serialize(&first), serialize(&second), index)
}

fn index_json(weight_map: &BTreeMap<String, String>) -> Vec<u8> {
    serde_json::json!({"metadata": {"total_size": 0}, "weight_map": weight_map}).to_string().into_bytes()
}

#[test]
fn shards_are_one_checkpoint() {
    let (a, b, index) = shards();
    let dir = directory(&[("a.safetensors", &a), ("b.safetensors", &b), (INDEX, &index_json(&index))]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    checkpoint.check(&tiny()).unwrap();
    assert_eq!(checkpoint.file_bytes(), (a.len() + b.len()) as u64);
    let wte = checkpoint.embeddings(&tiny()).unwrap().wte;
    assert_eq!(wte.bytes, f32s(&[11, 8]).2);
    checkpoint.release(wte.bytes);
    assert_eq!(wte.bytes, f32s(&[11, 8]).2);
}

#[test]
fn an_index_may_name_what_the_model_does_not_need_and_no_shard_has() {
    let (a, b, index) = shards();
    for name in ["lm_head.weight", "h.0.attn.bias", "h.1.attn.masked_bias", "_orig_mod.lm_head.weight"] {
        let mut index = index.clone();
        index.insert(name.into(), "a.safetensors".into());
        let dir = directory(&[("a.safetensors", &a), ("b.safetensors", &b), (INDEX, &index_json(&index))]);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        checkpoint.check(&tiny()).unwrap();
        assert!(checkpoint.embeddings(&tiny()).unwrap().lm_head.is_none());
        // A head that is not tied is needed, and missing.
        let untied = Config { tie_word_embeddings: false, ..tiny() };
        let error = checkpoint.check(&untied).unwrap_err();
        assert!(
            matches!(&error, CheckpointError::Missing { name, .. } if name == "lm_head.weight"),
            "{error}"
        );
    }
}

#[test]
fn an_index_is_read_as_python_writes_it() {
    let (a, b, index) = shards();
    let index = String::from_utf8(index_json(&index)).unwrap();
    let index = format!("\u{feff}{}", index.replace("\"total_size\":0", "\"total_size\":0.0,\"loss\":NaN"));
    assert!(index.contains("NaN"));
    let dir = directory(&[("a.safetensors", &a), ("b.safetensors", &b), (INDEX, index.as_bytes())]);
    Checkpoint::open(dir.path()).unwrap().check(&tiny()).unwrap();
}

#[test]
fn shards_and_index_must_agree() {
    let (a, b, index) = shards();
    let with = |name: &str, shard: &str| {
        let mut index = index.clone();
        index.insert(name.into(), shard.into());
        index_json(&index)
    };
    let open = |files: &[(&str, &[u8])]| {
        Checkpoint::open(directory(files).path())
            .and_then(|checkpoint| checkpoint.check(&tiny()))
            .unwrap_err()
    };
    let (file_a, file_b) = (("a.safetensors", &a[..]), ("b.safetensors", &b[..]));

    let error = open(&[file_a, (INDEX, &index_json(&index))]);
    assert!(matches!(&error, CheckpointError::Io { path, .. } if path.ends_with("b.safetensors")), "{error}");
    let error = open(&[file_a, file_b, (INDEX, &with("wte.weight", "a.safetensors"))]);
    assert!(matches!(&error, CheckpointError::NotInShard { name, .. } if name == "wte.weight"), "{error}");
    let error = open(&[file_a, file_b, (INDEX, &with("extra", "a.safetensors"))]);
    assert!(matches!(&error, CheckpointError::NotInShard { name, .. } if name == "extra"), "{error}");
    let error = open(&[file_a, ("b.safetensors", &serialize(&model(&tiny()))), (INDEX, &index_json(&index))]);
    assert!(matches!(error, CheckpointError::Duplicate { .. }), "{error}");
    for bytes in [&b"{}"[..], b"", b"{\"weight_map\": {\"a\": 1}}", b"{\"weight_map\": {\"a\": \"\xff\"}}"] {
        let error = open(&[(INDEX, bytes)]);
        assert!(matches!(error, CheckpointError::Malformed { .. }), "{error}");
    }
    let error = open(&[(INDEX, br#"{"weight_map": {"wte.weight": "a", "wte.weight": "b"}}"#)]);
    assert!(chain(&error).contains("`wte.weight` occurs twice"), "{}", chain(&error));
    for shard in ["../a.safetensors", "/etc/passwd", "x/a", "..", ".", "", "C:a", "..\\a", "a\0"] {
        let error = open(&[file_a, file_b, (INDEX, &with("wte.weight", shard))]);
        assert!(
            matches!(&error, CheckpointError::ShardName { shard: found, .. } if found == shard),
            "{error}"
        );
    }
}

#[test]
fn inspecting_counts_what_the_files_hold() {
    let config = tiny();
    let mut tensors = with_prefix(model(&config));
    tensors.insert("transformer.h.0.attn.bias".into(), numbers(safetensors::Dtype::BOOL, &[1, 1, 7, 7]));
    tensors.insert("transformer.ln_f.weight".into(), numbers(safetensors::Dtype::F16, &[8]));
    let bytes = serialize(&tensors);
    let file_bytes = bytes.len() as u64;
    let inspection = inspect("tiny", &config, &Checkpoint::from_bytes(bytes).unwrap()).unwrap();
    // wte 88, wpe 56, attention 2 × (8·24 + 24 + 64 + 8), mlp 2 × (96 + 12 + 96 + 8), layer norms 5 × 16
    assert_eq!(inspection.total_parameters, 88 + 56 + 576 + 424 + 80);
    assert_eq!(inspection.total_if_untied, Some(inspection.total_parameters + 88));
    assert_eq!(inspection.tensors.iter().map(|tensor| tensor.parameters).sum::<u64>(), 1224);
    assert_eq!((inspection.tensor_bytes, inspection.file_bytes), (1224 * 4 - 16, file_bytes));
    assert_eq!(
        (inspection.tensors[0].name.as_str(), inspection.tensors[0].dtype),
        ("transformer.wte.weight", "F32")
    );
    let json = serde_json::to_value(&inspection).unwrap();
    assert_eq!(json["model"], "tiny");
    assert_eq!(json["total_parameters"], 1224);
    assert_eq!(json["verified"], true);
    assert_eq!(json["components"][0]["name"], "transformer.h.0 (Block 0)");
    assert_eq!(json["components"][0]["parameters"], (576 + 424) / 2 + 32);
    assert_eq!(json["components"][4]["name"], "transformer.wte (Word Embeddings)");
    assert_eq!(json["components"][4]["share"], 88.0 / 1224.0);
    assert_eq!(json["tensors"][26]["dtype"], "F16");
    assert!(json["architecture"].as_str().unwrap().contains("(0-1): 2 x GPT2Block("));

    tensors.insert("lm_head.weight".into(), numbers(safetensors::Dtype::F32, &[11, 8]));
    let checkpoint = Checkpoint::from_bytes(serialize(&tensors)).unwrap();
    let inspection = inspect("tiny", &config, &checkpoint).unwrap();
    assert_eq!(inspection.total_parameters, 1224, "a tied head counts once");
    assert!(!inspection.verified);
    let [head] = &inspection.not_counted[..] else { panic!("{:?}", inspection.not_counted) };
    assert_eq!((head.name.as_str(), head.parameters), ("lm_head.weight", 88));

    tensors.remove("transformer.wpe.weight");
    let checkpoint = Checkpoint::from_bytes(serialize(&tensors)).unwrap();
    assert!(matches!(inspect("tiny", &config, &checkpoint), Err(CheckpointError::Missing { .. })));
}
