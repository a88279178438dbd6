//! Packed copies: the same bits with and without them, and no trust in what a directory holds.
#![cfg(all(unix, target_endian = "little"))]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gpt2::cache::KvCache;
use gpt2::checkpoint::{Checkpoint, expected_tensors};
use gpt2::config::Config;
use gpt2::model::{Model, Step, Want};
use gpt2::pack::{PackCache, PackUse};
use gpt2::workspace::Workspace;
use gpt2_kernels::quant::PACK_VERSION;
use gpt2_kernels::{Cpu, Dtype, Kernels, Matrix, Source, WeightFormat};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const ROUNDED: [WeightFormat; 2] = [WeightFormat::Int8, WeightFormat::Int4];

/// A model's directory and a cache that starts empty.
struct Room {
    directory: TempDir,
    copies: PackCache,
}

impl Room {
    /// Copies a golden case.
    fn new(case: &str) -> Self {
        let room = Self::empty();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden").join(case);
        for entry in fs::read_dir(golden).expect("the golden case is there") {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().expect("an entry has a name");
            fs::copy(&path, room.model().join(name)).expect("a file can be copied");
        }
        room
    }

    fn empty() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        fs::create_dir(directory.path().join("model")).expect("a directory can be made");
        let copies = PackCache::new(directory.path().join("home/cache/packed"));
        Self { directory, copies }
    }

    fn model(&self) -> PathBuf {
        self.directory.path().join("model")
    }

    fn load(&self, format: WeightFormat) -> (Vec<u32>, PackUse) {
        load(&self.model(), format, &self.copies)
    }

    /// The logits without any copy.
    fn expected(&self, format: WeightFormat) -> Vec<u32> {
        let (config, checkpoint) = open(&self.model());
        let cpu = Cpu::new(Kernels::detect(), 2);
        logits(&Model::load(cpu, config, &checkpoint, format.into(), &mut |_, _| ()).expect("a model"))
    }

    /// The files of the cache, unfinished ones included.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.copies.directory).expect("the cache is there");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
        files.sort();
        files
    }

    fn only_file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }
}

fn open(model: &Path) -> (Config, Checkpoint) {
    let json = fs::read(model.join("config.json")).expect("a configuration");
    (Config::from_json(&json).expect("a configuration"), Checkpoint::open(model).expect("a checkpoint"))
}

fn load(model: &Path, format: WeightFormat, copies: &PackCache) -> (Vec<u32>, PackUse) {
    let (config, checkpoint) = open(model);
    let cpu = Cpu::new(Kernels::detect(), 2);
    let (mut done, mut total) = (0, 1);
    let mut progress = |now, all| (done, total) = (now, all);
    let (model, found) =
        Model::load_with_copies(cpu, config, &checkpoint, format.into(), copies, &mut progress)
            .expect("a model");
    assert_eq!(done, total, "the progress ends at its end");
    (logits(&model), found)
}

/// The bits of the logits of a short text.
fn logits(model: &Model) -> Vec<u32> {
    let text: Vec<u32> = (0..9).map(|i| (i * i * 7 + 3) % model.config().vocab_size as u32).collect();
    let mut cache = KvCache::new(model);
    let mut work = Workspace::new(model, text.len(), text.len());
    let step = Step::new(model, &text, &mut cache, Want::All).expect("a step");
    model.forward(&mut [step], &mut work);
    let rows = work.logits(text.len());
    (0..text.len()).flat_map(|row| rows.row(row).iter().map(|x| x.to_bits()).collect::<Vec<_>>()).collect()
}

#[test]
fn a_copy_gives_the_same_bits_as_the_checkpoint() {
    for case in ["one-layer", "untied-head", "tied-head-stored", "sharded", "odd-vocabulary", "bf16"] {
        let room = Room::new(case);
        for format in ROUNDED {
            let expected = room.expected(format);
            for found in ["Written", "Read", "Read"] {
                let (logits, outcome) = room.load(format);
                assert_eq!(format!("{outcome:?}"), found, "{case} {format:?}");
                assert!(logits == expected, "{case} {format:?} {outcome:?}");
            }
        }
        assert_eq!(room.files().len(), ROUNDED.len(), "{case}");
    }
}

#[test]
fn matrices_of_several_pieces_come_back_in_order() {
    let room = Room::empty();
    // `wte` in eight bits has more than two pieces of a mebibyte.
    let json = r#"{"model_type": "gpt2", "n_layer": 1, "n_embd": 256, "n_head": 4, "n_positions": 16, "vocab_size": 9000}"#;
    fs::write(room.model().join("config.json"), json).expect("a file can be written");
    let config = Config::from_json(json.as_bytes()).expect("a configuration");
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = expected_tensors(&config)
        .enumerate()
        .map(|(salt, (name, shape))| {
            let count = shape.iter().product::<usize>();
            (name, shape, weights(count, salt as u32))
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.expect("a tensor of this size"))
    });
    let bytes = safetensors::serialize(views, None).expect("tensors make a file");
    fs::write(room.model().join("model.safetensors"), bytes).expect("a file can be written");
    for format in ROUNDED {
        let expected = room.expected(format);
        assert!(room.load(format).0 == expected);
        let (logits, outcome) = room.load(format);
        assert!(matches!(outcome, PackUse::Read), "{outcome:?}");
        assert!(logits == expected, "{format:?}");
    }
}

/// Bytes of numbers between -1 and 1 that look random.
fn weights(count: usize, salt: u32) -> Vec<u8> {
    let number = |i: u32| {
        let mixed = (i ^ salt.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
        ((mixed >> 8) as f32 / 8_388_608.0 - 1.0).to_le_bytes()
    };
    (0..count as u32).flat_map(number).collect()
}

#[test]
fn a_damaged_or_foreign_copy_is_rebuilt() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 9] = [
        ("truncated", |bytes| bytes.truncate(bytes.len() - 1)),
        ("empty", |bytes| bytes.clear()),
        ("longer", |bytes| bytes.push(0)),
        ("the first bit flipped", |bytes| bytes[0] ^= 1),
        ("another version", |bytes| bytes[8] += 1),
        ("another version of packing", |bytes| bytes[12] += 1),
        ("another identity", |bytes| bytes[40] ^= 128),
        ("a bit of a check flipped", |bytes| bytes[70] ^= 4),
        ("the last bit flipped", |bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 128;
        }),
    ];
    let room = Room::new("one-layer");
    let format = WeightFormat::Int8;
    let expected = room.expected(format);
    room.load(format);
    let path = room.only_file();
    let whole = fs::read(&path).expect("a copy can be read");
    for (name, damage) in damages {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&path, bytes).expect("a copy can be written");
        let (logits, outcome) = room.load(format);
        assert!(matches!(outcome, PackUse::Written), "{name}: {outcome:?}");
        assert!(logits == expected, "{name}");
        assert!(fs::read(room.only_file()).expect("a copy can be read") == whole, "{name}");
    }
    // Every byte of a piece counts, not only its ends.
    for place in (4096..whole.len()).step_by(1009) {
        let mut bytes = whole.clone();
        bytes[place] ^= 16;
        fs::write(&path, bytes).expect("a copy can be written");
        assert!(matches!(room.load(format).1, PackUse::Written), "byte {place}");
    }
}

#[test]
fn the_copy_of_another_model_is_not_used_under_a_false_name() {
    let (room, other) = (Room::new("one-layer"), Room::new("one-layer"));
    let format = WeightFormat::Int4;
    room.load(format);
    other.load(format);
    assert_ne!(
        room.only_file().file_name(),
        other.only_file().file_name(),
        "the path is part of the identity"
    );
    fs::copy(other.only_file(), room.only_file()).expect("a copy can be replaced");
    assert!(matches!(room.load(format).1, PackUse::Written));
}

#[test]
fn a_changed_checkpoint_makes_another_copy() {
    let room = Room::new("one-layer");
    let format = WeightFormat::Int8;
    let before = room.load(format).0;
    let path = room.model().join("model.safetensors");
    let time = modified(&path);

    // Later, with the same bytes.
    set_modified(&path, time + Duration::from_nanos(1));
    assert!(matches!(room.load(format).1, PackUse::Written));
    assert_eq!(room.files().len(), 2);

    // Other weights in a file of the same inode, length and time.
    let mut bytes = fs::read(&path).expect("a checkpoint can be read");
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("a header")) as usize;
    for value in bytes[header..].as_chunks_mut::<4>().0 {
        *value = (f32::from_le_bytes(*value) * 0.5).to_le_bytes();
    }
    fs::write(&path, bytes).expect("a checkpoint can be written");
    set_modified(&path, time);
    let (logits, outcome) = room.load(format);
    assert!(matches!(outcome, PackUse::Written), "{outcome:?}");
    assert!(logits != before && logits == room.expected(format));
    assert_eq!(room.files().len(), 3);
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|metadata| metadata.modified()).expect("a file has a time")
}

fn set_modified(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).expect("a file can be opened");
    file.set_modified(time).expect("a time can be set");
}

#[test]
fn formats_that_round_nothing_and_models_without_a_file_have_no_copies() {
    let room = Room::new("one-layer");
    for format in [WeightFormat::F32, WeightFormat::Bf16] {
        assert!(matches!(room.load(format).1, PackUse::None));
    }
    let (config, _) = open(&room.model());
    let bytes = fs::read(room.model().join("model.safetensors")).expect("a checkpoint can be read");
    let checkpoint = Checkpoint::from_bytes(bytes).expect("a checkpoint");
    let (cpu, format) = (Cpu::new(Kernels::detect(), 1), WeightFormat::Int8.into());
    let loaded = Model::load_with_copies(cpu, config, &checkpoint, format, &room.copies, &mut |_, _| ());
    assert!(matches!(loaded.expect("a model").1, PackUse::None));
    assert!(!room.copies.directory.exists());
}

#[test]
fn threads_that_start_together_all_have_the_right_model() {
    let room = Room::new("one-layer");
    for format in ROUNDED {
        let expected = room.expected(format);
        std::thread::scope(|scope| {
            let load = || {
                let (logits, outcome) = room.load(format);
                assert!(logits == expected, "{outcome:?}");
                assert!(matches!(outcome, PackUse::Read | PackUse::Written), "{outcome:?}");
            };
            for thread in [(); 6].map(|()| scope.spawn(load)) {
                thread.join().expect("no thread panics");
            }
        });
    }
    assert_eq!(room.files().len(), ROUNDED.len(), "nothing unfinished is left");
}

#[test]
fn the_copies_that_were_used_longest_ago_are_given_up() {
    let mut room = Room::new("one-layer");
    let source = room.model().join("model.safetensors");
    let start = modified(&source);
    // The same model at three times has three copies of one size.
    let at = |room: &Room, nanosecond| {
        set_modified(&source, start + Duration::from_nanos(nanosecond));
        room.load(WeightFormat::Int8).1
    };
    assert!(matches!(at(&room, 0), PackUse::Written));
    let oldest = room.only_file();
    let size = fs::metadata(&oldest).expect("a copy").len();
    assert!(matches!(at(&room, 1), PackUse::Written));
    let second = room.files().into_iter().find(|path| *path != oldest).expect("two copies");
    let notes = room.copies.directory.join("notes.txt");
    fs::write(&notes, vec![0; 10 * size as usize]).expect("a file can be written");
    for path in [&oldest, &second] {
        set_modified(path, SystemTime::UNIX_EPOCH);
    }
    // Reading makes it the latest used.
    assert!(matches!(at(&room, 0), PackUse::Read));
    assert!(modified(&oldest) > SystemTime::UNIX_EPOCH);

    room.copies.limit = 2 * size;
    assert!(matches!(at(&room, 2), PackUse::Written));
    assert!(oldest.exists() && !second.exists());
    assert!(notes.exists(), "other files are left alone and not counted");
    assert_eq!(room.files().len(), 3);

    room.copies.limit = size - 1;
    assert!(matches!(at(&room, 3), PackUse::NotWritten(_)));
    assert_eq!(room.files().len(), 3, "nothing is given up in vain");
}

#[test]
fn what_a_dead_writer_left_is_removed_and_what_a_living_one_writes_is_not() {
    let room = Room::new("one-layer");
    room.load(WeightFormat::Int8);
    let name = room.only_file().file_name().expect("a name").to_string_lossy().into_owned();
    let unfinished = |number: u32| room.copies.directory.join(format!(".{name}.{number}-0.unfinished"));
    let (dead, living) = (unfinished(1), unfinished(2));
    fs::write(&dead, b"half").expect("a file can be written");
    let file = File::create(&living).expect("a file can be made");
    file.lock().expect("a file can be locked");
    room.load(WeightFormat::Int4);
    assert!(!dead.exists() && living.exists());
}

#[test]
fn a_directory_that_cannot_be_written_is_no_error() {
    let mut room = Room::new("one-layer");
    let format = WeightFormat::Int8;
    room.load(format);
    let directory = room.copies.directory.clone();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o500)).expect("permissions can be set");
    let (logits, outcome) = room.load(format);
    assert!(matches!(outcome, PackUse::Read), "{outcome:?}");
    assert!(logits == room.expected(format));

    // A file where the directory should be stops everyone, the superuser included.
    room.copies.directory = room.model().join("config.json").join("packed");
    let (logits, outcome) = room.load(format);
    assert!(matches!(outcome, PackUse::NotWritten(_)), "{outcome:?}");
    assert!(logits == room.expected(format));
}

#[test]
fn copies_are_for_their_owner_alone() {
    let room = Room::new("one-layer");
    room.load(WeightFormat::Int8);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!(mode(&room.copies.directory), 0o700);
    assert_eq!(mode(&room.only_file()), 0o600);
}

#[test]
fn the_bytes_of_this_version_of_packing_are_known() {
    let (inputs, outputs) = (100, 130);
    let weights = weights(inputs * outputs, 1);
    let cpu = Cpu::new(Kernels::by_name("scalar").expect("it runs everywhere"), 1);
    let digest = |format| {
        let source = Source::by_input(&weights, Dtype::F32, inputs, outputs);
        let digest = Sha256::digest(Matrix::pack(&cpu, source, format).as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let found = [WeightFormat::Int8, WeightFormat::Int6, WeightFormat::Int4].map(digest);
    let expected = ["a874f07fbcb5e35d", "664c73da4b3c6002", "ee70f2d03197996f"];
    assert_eq!(
        (PACK_VERSION, found.each_ref().map(String::as_str)),
        (1, expected),
        "packing makes other bytes: raise `PACK_VERSION`, and put what was found here"
    );
}
