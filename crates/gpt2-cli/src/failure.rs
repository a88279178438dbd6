//! What ends a command early: how it is told to people, and its exit code.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use gpt2::checkpoint::CheckpointError;
use gpt2::divergence::DivergenceError;
use gpt2::generate::GenerateError;
use gpt2::hub::HubError;
use gpt2::model::StepError;
use gpt2::tokenizer::TokenizerError;

use crate::terminal::{paint_error, thousands};

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever reads standard output has seen enough: no failure at all.
    ReaderGone,
    /// Ctrl-C was pressed, and all that there is to say of it is said. Exit code 130.
    Interrupted,
    /// The command line asks for something that cannot be. Exit code 2.
    Usage(Report),
    /// Anything else. Exit code 1.
    Failed(Report),
}

/// An error and what can be done about it.
#[derive(Debug)]
pub(crate) struct Report {
    error: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
}

impl Failure {
    /// Says that the command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(Report { error: message.into().into(), hints: Vec::new() })
    }

    /// Says that something went wrong.
    pub(crate) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Report { error: error.into(), hints: Vec::new() })
    }

    /// Says that a text does not fit into the model's context.
    pub(crate) fn too_long(tokens: usize, context: usize) -> Self {
        let (tokens, context) = (thousands(tokens), thousands(context));
        Self::new(format!("the text has {tokens} tokens, more than the model's context of {context}"))
    }

    /// Says what went wrong, and what the cause was.
    pub(crate) fn caused(message: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Caused { message, source: source.into() })
    }

    /// Adds what can be done about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Usage(report) | Self::Failed(report) = &mut self {
            report.hints.push(hint.into());
        }
        self
    }

    /// Whether it speaks of a flag, alone or with its value.
    pub(crate) fn names(&self, flag: &str) -> bool {
        let (Self::Usage(report) | Self::Failed(report)) = self else { return false };
        let texts = std::iter::once(report.error.to_string()).chain(report.hints.iter().cloned());
        let names = |text: &str| text.split('`').any(|part| part.split([' ', '=']).next() == Some(flag));
        texts.into_iter().any(|text| names(&text))
    }

    /// Adds what is likely to be the reason, before all other hints.
    pub(crate) fn first_hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Usage(report) | Self::Failed(report) = &mut self {
            report.hints.insert(0, hint.into());
        }
        self
    }

    /// Adds a hint if there is one.
    fn maybe_hint(self, hint: Option<&str>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Prints the failure to standard error and returns its exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (report, code) = match self {
            Self::ReaderGone => return ExitCode::SUCCESS,
            Self::Interrupted => return ExitCode::from(130),
            Self::Usage(report) => (report, 2),
            Self::Failed(report) => (report, 1),
        };
        let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
        let cyan = Style::new().fg_color(Some(AnsiColor::Cyan.into())).bold();
        paint_error(red, "error:", &report.error.to_string());
        let mut cause = report.error.source();
        while let Some(error) = cause {
            paint_error(Style::new().dimmed(), "caused by:", &error.to_string());
            cause = error.source();
        }
        for hint in &report.hints {
            paint_error(cyan, "hint:", hint);
        }
        ExitCode::from(code)
    }
}

/// An error and its cause.
#[derive(Debug)]
struct Caused {
    message: String,
    source: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for Caused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Caused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// A bare I/O error is one of standard output: those of files come with the file's name.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::caused("cannot write to standard output".to_owned(), error),
        }
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        let hint = match &error {
            CheckpointError::Truncated { .. } | CheckpointError::Length { .. } => {
                Some("download or copy the file again")
            }
            CheckpointError::OtherFormat { .. } => Some(
                "save the model in Python with `model.save_pretrained(directory, safe_serialization=True)`",
            ),
            CheckpointError::NoWeights { .. } => Some(MODEL_DIRECTORY),
            CheckpointError::LfsPointer { .. } => {
                Some("fetch the weights with `git lfs pull`, or the model with `gpt2 download`")
            }
            CheckpointError::Shape { .. }
            | CheckpointError::Missing { .. }
            | CheckpointError::Unknown { .. } => {
                Some("`config.json` and the weights may be of two different models")
            }
            _ => None,
        };
        Self::new(error).maybe_hint(hint)
    }
}

/// What a directory must hold to be a model.
pub(crate) const MODEL_DIRECTORY: &str =
    "a model directory holds `config.json`, `model.safetensors` and `tokenizer.json`";

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let hint = error.hint();
        match error {
            HubError::Checkpoint(error) => error.into(),
            HubError::InvalidId { .. } | HubError::InvalidRevision { .. } => Self::Usage(Report {
                error: error.into(),
                hints: hint.map(str::to_owned).into_iter().collect(),
            }),
            _ => Self::new(error).maybe_hint(hint),
        }
    }
}

impl From<TokenizerError> for Failure {
    fn from(error: TokenizerError) -> Self {
        let hint = matches!(error, TokenizerError::Missing { .. }).then_some(MODEL_DIRECTORY);
        Self::new(error).maybe_hint(hint)
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Context { past: 0, new, context } => Self::too_long(new, context).hint("shorten it"),
            StepError::Token { .. } => Self::new(error).hint("the tokenizer may belong to another model"),
            StepError::NotFinite { .. } => Self::new(error).hint("download or copy the model again"),
            _ => Self::new(error),
        }
    }
}

impl From<DivergenceError> for Failure {
    fn from(error: DivergenceError) -> Self {
        match error {
            DivergenceError::Step(error) => error.into(),
            _ => Self::new(error),
        }
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Step(StepError::Context { past: 0, new, context }) => Self::too_long(new, context)
                .hint("shorten it, or have the model look at the end of it with `--overflow slide`"),
            GenerateError::Step(error) => error.into(),
            GenerateError::Tokenizer(error) => error.into(),
            GenerateError::MaxLength { .. } => Self::new(error)
                .hint("`--max-new-tokens` counts new tokens only, and `--max-length` the prompt as well"),
            GenerateError::SameSequences(_) => Self::Usage(Report {
                error: error.into(),
                hints: vec!["tokens are drawn with `--do-sample` and a `--temperature` above 0".to_owned()],
            }),
            GenerateError::TwoLengths { .. } => {
                Self::Usage(Report { error: error.into(), hints: Vec::new() })
            }
            _ => Self::new(error),
        }
    }
}
