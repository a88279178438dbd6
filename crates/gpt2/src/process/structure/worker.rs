//! The thread that matches tokens and finds out which may follow, while the model runs.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use llguidance::Matcher;

use super::grammar::{Grammar, NOTHING_FITS, Vocabulary, message};

/// What may follow the tokens of a sequence.
pub(super) struct Answer {
    pub(super) allowed: Allowed,
    /// Whether the text is complete and nothing can follow it but an end.
    pub(super) ended: bool,
}

impl Answer {
    /// Whether the text is not complete and no token can follow.
    pub(super) fn is_dead_end(&self) -> bool {
        !self.ended && matches!(&self.allowed, Allowed::Only(ids) if ids.is_empty())
    }
}

/// Tokens that are allowed, ascending; or, where these are most, those that are not.
#[derive(Debug, PartialEq)]
pub(super) enum Allowed {
    Only(Vec<u32>),
    AllBut(Vec<u32>),
}

/// What may follow some tokens of a sequence?
pub(super) struct Request {
    pub(super) sequence: usize,
    /// Every request has another one.
    pub(super) number: u64,
    /// So many of the tokens are those that the sequence had the last time.
    pub(super) same: usize,
    /// The tokens behind them.
    pub(super) tokens: Vec<u32>,
}

/// The thread, seen from the other one.
pub(super) struct Worker {
    /// None only while it is dropped.
    requests: Option<Sender<Request>>,
    answers: Receiver<(usize, u64, Answer)>,
    thread: Option<JoinHandle<()>>,
    ends: Arc<[u32]>,
}

impl Worker {
    pub(super) fn start(grammar: &Grammar, ends: &[u32], vocabulary: usize) -> io::Result<Self> {
        let ends: Arc<[u32]> = ends.into();
        let (requests, inbox) = channel::<Request>();
        let (outbox, answers) = channel();
        let mut task = Task {
            start: grammar.matcher(),
            sequences: Vec::new(),
            tokens: grammar.vocabulary().clone(),
            ends: ends.clone(),
            vocabulary,
            failure: grammar.failure.clone(),
        };
        let thread = std::thread::Builder::new().name("structured outputs".to_owned()).spawn(move || {
            for request in inbox {
                let (sequence, number) = (request.sequence, request.number);
                // Whoever asked may be gone; then the requests end, too.
                let _ = outbox.send((sequence, number, task.answer(request)));
            }
        })?;
        Ok(Self { requests: Some(requests), answers, thread: Some(thread), ends })
    }

    /// Whether a token ends a text.
    pub(super) fn ends(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    pub(super) fn ask(&mut self, request: Request) {
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(request).is_ok());
        if !sent {
            self.fail();
        }
    }

    /// Waits for the next answer.
    pub(super) fn receive(&mut self) -> (usize, u64, Answer) {
        match self.answers.recv() {
            Ok(answer) => answer,
            Err(_) => self.fail(),
        }
    }

    /// Goes on with the panic of the thread, which ends by nothing else while there is somebody to ask it.
    fn fail(&mut self) -> ! {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => panic!("the thread of the structured outputs has ended"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, is not for whoever no longer asks.
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Task {
    start: Matcher,
    sequences: Vec<Option<Followed>>,
    tokens: Arc<Vocabulary>,
    ends: Arc<[u32]>,
    vocabulary: usize,
    failure: Arc<OnceLock<String>>,
}

/// A sequence.
struct Followed {
    matcher: Matcher,
    tokens: Vec<u32>,
    /// Whether the matcher has taken all of these.
    taken: bool,
}

impl Task {
    fn answer(&mut self, Request { sequence, same, tokens, .. }: Request) -> Answer {
        if self.sequences.len() <= sequence {
            self.sequences.resize_with(sequence + 1, || None);
        }
        // Matchers share nothing: limits of the work for a mask count what one sequence has cost.
        let start = || Followed { matcher: self.start.deep_clone(), tokens: Vec::new(), taken: true };
        let followed = self.sequences[sequence].get_or_insert_with(start);
        let back = followed.tokens.len() - same;
        followed.tokens.truncate(same);
        followed.tokens.extend(&tokens);
        let goes_on = followed.taken && (back == 0 || followed.matcher.rollback(back).is_ok());
        let from = if goes_on {
            same
        } else {
            followed.matcher = self.start.deep_clone();
            0
        };
        followed.taken = false;
        let tokens = &followed.tokens[from..];
        match follow(&mut followed.matcher, tokens, &self.tokens, &self.ends, self.vocabulary) {
            Ok(answer) => {
                followed.taken = true;
                answer
            }
            Err(message) => {
                // The first failure is the one to tell of.
                let _ = self.failure.set(message);
                Answer { allowed: Allowed::Only(Vec::new()), ended: false }
            }
        }
    }
}

/// Has a matcher take some tokens, and finds out what may follow.
fn follow(
    matcher: &mut Matcher,
    tokens: &[u32],
    known: &Vocabulary,
    ends: &[u32],
    vocabulary: usize,
) -> Result<Answer, String> {
    let taken = matcher.try_consume_tokens(tokens).map_err(message)?;
    if let Some(token) = tokens.get(taken) {
        return Err(format!("token {token} was chosen, and the text cannot go on with it"));
    }
    let may_end = matcher.is_accepting().map_err(message)?;
    let mut allowed = known.none();
    if !matcher.is_stopped() {
        match matcher.compute_mask().map_err(message) {
            Ok(mask) => allowed = mask,
            // That no token fits is no failure, but the end.
            Err(error) if error == NOTHING_FITS => {}
            Err(error) => return Err(error),
        }
    }
    allowed.and(known.spelled());
    let ended = may_end && allowed.is_zero();
    // Ends may spell something, or not be tokens of the tokenizer.
    let is_end = |id: &u32| ends.contains(id);
    let spelled = allowed.len();
    for id in ends.iter().map(|&id| id as usize).filter(|&id| id < spelled) {
        allowed.set(id, may_end);
    }
    let unknown = spelled as u32..vocabulary as u32;
    let mut list = Vec::with_capacity(vocabulary / 2 + 1);
    let mut push = |id: usize| {
        if id < vocabulary {
            list.push(id as u32);
        }
    };
    // Both lists are ways to say the same; the shorter one is quicker to go through.
    let allowed = if 2 * allowed.num_set() <= vocabulary {
        allowed.iter_set_entries(&mut push);
        list.extend(unknown.filter(|id| may_end && is_end(id)));
        Allowed::Only(list)
    } else {
        allowed.iter_unset_entries(&mut push);
        list.extend(unknown.filter(|id| !(may_end && is_end(id))));
        Allowed::AllBut(list)
    };
    Ok(Answer { allowed, ended })
}
