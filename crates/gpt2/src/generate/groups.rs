//! Diverse and constrained beam search: groups of beams that avoid each other's tokens, and words that must occur.
//!
//! These are `_group_beam_search` and `_constrained_beam_search` of transformers 4.53, the last version that has them
//! (Vijayakumar et al. 2018, "Diverse Beam Search"; Hokamp, Liu 2017 and Post, Vilar 2018 for the constraints), with
//! the rules that beams had there for when a text is finished: end tokens finish one, and at the limit all that go on
//! are. Where that version writes the first end token behind a text, whichever it ended with, here stands the one it
//! ended with. A stop string or a criterion of the caller's, which it knows only for all beams at once, finishes a
//! text as an end token does. What processors rule out is never forced.

use std::collections::VecDeque;

use super::beam::{self, Beam, Candidate, Prediction, Shown, Text, highest};
use super::config::EarlyStopping;
use super::constraints::Constraints;
use super::core::Core;
use super::details::Recording;
use super::{FinishReason, GenerateError, GeneratedToken};
use crate::cache::KvCache;
use crate::model::Step;
use crate::workspace::Workspace;

/// The beams of a prompt in their groups; one group where there are constraints.
pub(super) struct Groups<'m> {
    groups: Vec<Group>,
    constraints: Option<Constraints>,
    /// What is returned, best first; empty before the end.
    returned: Vec<Finished>,
    ended: bool,
    shown: Shown,
    /// Empty but during a forward pass; kept for its allocation.
    steps: Vec<Step<'m>>,
    started: bool,
    /// The processed log-probabilities of a group's next tokens, one beam behind the other. (beams · V)
    processed: Vec<f32>,
    /// What happened to them, for each beam, if anybody wants to know.
    recordings: Vec<Recording>,
}

/// Beams that compete with each other.
struct Group {
    size: usize,
    running: Vec<Beam>,
    /// The best that were found, as many as the group has beams at most, in the order in which they were found.
    finished: Vec<Finished>,
    /// Whether no better text is to be expected.
    done: bool,
}

/// A text that has ended.
struct Finished {
    text: Text,
    /// The sum of its scores by its length to the power of the penalty.
    score: f64,
    reason: FinishReason,
}

/// A text that may go on.
struct Next {
    parent: usize,
    text: Text,
    /// The sum of its scores.
    score: f32,
    /// That all texts end with this token, if they do.
    over: Option<FinishReason>,
}

/// Which beams of the batch are looked at.
#[derive(Clone, Copy)]
struct Place {
    group: usize,
    /// The first beam's index in the batch, if all groups were there.
    beam: usize,
    /// Its row of the logits.
    row: usize,
}

impl<'m> Groups<'m> {
    pub(super) fn new(core: &Core<'m>, cache: &KvCache, constraints: Option<Constraints>) -> Self {
        let beams = core.config.beams();
        let groups = core.config.groups();
        let size = beams / groups;
        let group =
            |_| Group { size, running: beam::begin(size, core, cache), finished: Vec::new(), done: false };
        Self {
            groups: (0..groups).map(group).collect(),
            constraints,
            returned: Vec::new(),
            ended: false,
            shown: Shown::new(core.config.sequences()),
            steps: Vec::with_capacity(beams),
            started: false,
            processed: Vec::new(),
            recordings: Vec::new(),
        }
    }

    pub(super) fn finished(&self) -> bool {
        self.ended || self.shown.stopped()
    }

    pub(super) fn stop(&mut self, sequence: usize) {
        self.shown.stop(sequence);
    }

    /// The scores of the texts that are returned, best first; empty before the end.
    pub(super) fn scores(&self) -> Vec<f32> {
        self.returned.iter().map(|finished| finished.score as f32).collect()
    }

    /// Takes all beams one token further, and gives out what is certain.
    pub(super) fn advance(
        &mut self,
        core: &mut Core<'m>,
        work: &mut Workspace,
        ready: &mut VecDeque<GeneratedToken>,
    ) -> Result<(), GenerateError> {
        if self.started {
            let beams = self.groups.iter_mut().flat_map(|group| &mut group.running);
            beam::forward(beams, &mut self.steps, core.model, work);
        }
        // What the groups before have chosen at this position.
        let mut chosen = Vec::with_capacity(core.config.beams());
        let (mut row, mut over) = (0, None);
        for group in 0..self.groups.len() {
            let size = self.groups[group].size;
            if self.groups[group].done {
                // As in transformers, a group that is done goes on with the token for what is behind the end.
                let pad = core.config.pad_token_id.or(core.eos_token_ids.first().copied());
                chosen.extend(pad.iter().cycle().take(size));
                continue;
            }
            let place = Place { group, beam: group * size, row };
            // Behind the prompt there is one row for all.
            row += if self.started { self.groups[group].running.len() } else { 0 };
            let predictions = self.process(core, work, place, &chosen)?;
            let next = self.choose(core, place, &predictions)?;
            chosen.extend(next.iter().filter_map(|next| next.text.tokens.last()));
            over = over.or(next.iter().find_map(|next| next.over));
            let Group { running, done, .. } = &mut self.groups[group];
            let parents: Vec<usize> = next.iter().map(|next| next.parent).collect();
            let caches = beam::hand_over(running, &parents);
            *done |= next.is_empty();
            if !*done {
                let beam = |(Next { text, score, .. }, cache)| Beam { cache, text, score };
                *running = next.into_iter().zip(caches).map(beam).collect();
            }
        }
        self.started = true;
        if over.is_some() || self.groups.iter().all(|group| group.done) {
            self.end(core, over);
        }
        self.show(core, ready);
        Ok(())
    }

    /// Computes the scores of what may follow the beams of a group; returns what the model says of it.
    fn process<'w>(
        &mut self,
        core: &mut Core<'m>,
        work: &'w Workspace,
        place: Place,
        chosen: &[u32],
    ) -> Result<Vec<Prediction<'w>>, GenerateError> {
        self.processed.clear();
        self.recordings.clear();
        let running = &self.groups[place.group].running;
        let mut predictions = Vec::with_capacity(running.len());
        for (index, beam) in running.iter().enumerate() {
            let (row, tokens) = (self.row(place, index), &beam.text.tokens);
            let logits = work.logits(row + 1).row(row);
            let normaliser = core.process_log_probabilities(logits, place.beam + index, tokens, chosen)?;
            predictions.push(Prediction::new(logits, normaliser));
            if !core.scores.are_numbers() {
                return Err(GenerateError::Scores { position: tokens.len() });
            }
            self.processed.extend_from_slice(core.scores.all());
            self.recordings.extend(core.recording.clone());
        }
        Ok(predictions)
    }

    fn row(&self, place: Place, beam: usize) -> usize {
        place.row + if self.started { beam } else { 0 }
    }

    /// Sorts the best candidates into texts that have ended and those that go on, and returns these.
    fn choose(
        &mut self,
        core: &mut Core<'m>,
        place: Place,
        predictions: &[Prediction<'_>],
    ) -> Result<Vec<Next>, GenerateError> {
        let vocabulary = core.model.config().vocab_size;
        let Group { size, running, .. } = &self.groups[place.group];
        let size = *size;
        let position = running[0].text.tokens.len();
        let score = |index: usize| self.processed[index] + running[index / vocabulary].score;
        // There are enough for all beams to go on, though each of the best ends with an end token.
        let count = (1 + core.eos_token_ids.len()).max(2) * size;
        let candidates: Vec<Candidate> = highest(count, (0..self.processed.len()).map(score))
            .into_iter()
            .map(|index| Candidate {
                beam: index / vocabulary,
                token: (index % vocabulary) as u32,
                score: score(index),
            })
            .filter(|candidate| candidate.score > f32::NEG_INFINITY)
            .collect();
        let best = candidates.first().ok_or(GenerateError::NoTokenLeft { position })?.score;
        let mut next = Vec::with_capacity(size);
        for (rank, &candidate) in candidates.iter().enumerate() {
            let text = self.text(core, place, predictions, candidate);
            let reason = core.finish(place.beam + candidate.beam, &text.tokens);
            if !ends(reason) {
                let Candidate { beam: parent, score, .. } = candidate;
                next.push(Next { parent, text, score, over: reason });
            } else if rank < size {
                // Those behind the first are there to go on, should the others end.
                self.finish(core, place.group, text, candidate.score, reason);
            }
            if next.len() == size {
                break;
            }
        }
        if self.constraints.is_some() {
            next = self.further(core, place, predictions, next);
        }
        let length = position + 1 - core.prompt.len();
        self.groups[place.group].done = self.groups[place.group].is_done(core, best, length);
        Ok(next)
    }

    /// A beam's text with a token more.
    fn text(
        &self,
        core: &Core<'m>,
        place: Place,
        predictions: &[Prediction<'_>],
        candidate: Candidate,
    ) -> Text {
        let Candidate { beam, token, .. } = candidate;
        let logprob = predictions[beam].logprob(token);
        let score = self.processed[beam * core.model.config().vocab_size + token as usize];
        let details = self.recordings.get(beam).map(|recording| recording.details(token, None));
        self.groups[place.group].running[beam].text.and(token, logprob, score, details)
    }

    /// Adds to what was found a text that has ended, if it has all that must occur.
    fn finish(&mut self, core: &Core<'m>, group: usize, text: Text, sum: f32, reason: Option<FinishReason>) {
        let complete = self.constraints.as_ref().is_none_or(|all| all.progress(&text.tokens).complete());
        if let Some(reason) = reason.filter(|_| complete) {
            self.groups[group].add(core, text, sum, reason);
        }
    }

    /// Puts beside the best texts those that come further with the constraints, and chooses among all: the best of
    /// those that have come furthest, then the best of those a step behind, and so on, and then the second best of each.
    fn further(
        &mut self,
        core: &mut Core<'m>,
        place: Place,
        predictions: &[Prediction<'_>],
        mut next: Vec<Next>,
    ) -> Vec<Next> {
        let Some(constraints) = &self.constraints else { return next };
        let vocabulary = core.model.config().vocab_size;
        let (size, best) = (self.groups[place.group].size, next.len());
        let bank = |next: &Next| constraints.bank(&constraints.progress(&next.text.tokens));
        let mut banks: Vec<usize> = next.iter().map(bank).collect();
        let mut ended = Vec::new();
        for (parent, beam) in self.groups[place.group].running.iter().enumerate() {
            let mut progress = constraints.progress(&beam.text.tokens);
            for token in constraints.next(&progress) {
                let bank = constraints.forced(&mut progress, token);
                let score = self.processed[parent * vocabulary + token as usize] + beam.score;
                let text = self.text(core, place, predictions, Candidate { beam: parent, token, score });
                let known = next.iter().any(|other| other.text.tokens == text.tokens);
                if known || score == f32::NEG_INFINITY {
                    continue;
                }
                let over = core.finish(place.beam + parent, &text.tokens);
                if ends(over) {
                    ended.push((text, score, over));
                } else {
                    next.push(Next { parent, text, score, over });
                    banks.push(bank);
                }
            }
        }
        let scores: Vec<f32> = next.iter().map(|next| next.score).collect();
        let mut all: Vec<Option<Next>> = next.into_iter().map(Some).collect();
        let order = if all.len() > best { in_turn(&banks, &scores) } else { (0..best).collect() };
        let next = order.into_iter().take(size).filter_map(|index| all[index].take()).collect();
        for (text, score, reason) in ended {
            let known = |other: &Finished| other.text.tokens == text.tokens;
            if !self.groups[place.group].finished.iter().any(known) {
                self.finish(core, place.group, text, score, reason);
            }
        }
        next
    }

    /// Ends all texts that go on, and sorts what was found.
    fn end(&mut self, core: &Core<'m>, over: Option<FinishReason>) {
        let Self { groups, constraints, returned, .. } = self;
        let complete = |text: &Text| {
            constraints.as_ref().is_none_or(|constraints| constraints.progress(&text.tokens).complete())
        };
        for group in groups.iter_mut().filter(|group| !group.done) {
            let running = group.running.drain(..).map(|Beam { text, score, .. }| (text, score));
            let (all, rest): (Vec<_>, Vec<_>) = running.partition(|(text, _)| complete(text));
            // Texts without all that must occur are better than none.
            let rest = if all.len() < self.shown.sequences() { rest } else { Vec::new() };
            for ((text, score), reason) in all.into_iter().chain(rest).zip(over.into_iter().cycle()) {
                group.add(core, text, score, reason);
            }
        }
        returned.extend(groups.iter_mut().flat_map(|group| group.finished.drain(..)));
        // Of equal scores that which was found last comes first.
        returned.sort_by(|a, b| a.score.total_cmp(&b.score));
        returned.reverse();
        returned.truncate(self.shown.sequences());
        self.ended = true;
    }

    /// Gives out what is certain.
    fn show(&mut self, core: &Core<'m>, ready: &mut VecDeque<GeneratedToken>) {
        let prompt = core.prompt.len();
        if self.ended {
            let texts = self.returned.iter().map(|finished| (&finished.text, finished.reason));
            self.shown.rest(prompt, texts, ready);
        } else {
            let running = self.groups.iter().flat_map(|group| &group.running).map(|beam| &beam.text);
            let finished = self.groups.iter().flat_map(|group| &group.finished);
            self.shown.agreed(prompt, running, finished.map(|finished| &finished.text), ready);
        }
    }
}

impl Group {
    /// Adds a text to what was found, if it is good enough: `BeamHypotheses.add`.
    fn add(&mut self, core: &Core<'_>, text: Text, sum: f32, reason: FinishReason) {
        let penalty = core.config.length_penalty.unwrap_or(1.0);
        let score = f64::from(sum) / (text.logprobs.len() as f64).powf(penalty);
        if self.finished.len() < self.size || score > self.worst() {
            self.finished.push(Finished { text, score, reason });
            if self.finished.len() > self.size {
                let worst = self.worst();
                let index = self.finished.iter().position(|finished| finished.score == worst);
                index.map(|index| self.finished.remove(index));
            }
        }
    }

    fn worst(&self) -> f64 {
        self.finished.iter().map(|finished| finished.score).fold(f64::INFINITY, f64::min)
    }

    /// Whether no better text is to be expected, when `best` is the highest sum of scores at a length:
    /// `BeamHypotheses.is_done`.
    fn is_done(&self, core: &Core<'_>, best: f32, length: usize) -> bool {
        let penalty = core.config.length_penalty.unwrap_or(1.0);
        let attainable = |length: usize| f64::from(best) / (length as f64).powf(penalty);
        self.finished.len() >= self.size
            && match core.config.early_stopping.unwrap_or_default() {
                EarlyStopping::True => true,
                EarlyStopping::Never if penalty > 0.0 => {
                    self.worst() >= attainable(core.limit.tokens - core.prompt.len())
                }
                _ => self.worst() >= attainable(length),
            }
    }
}

/// Whether a text by itself has ended, and not all at once.
fn ends(reason: Option<FinishReason>) -> bool {
    matches!(reason, Some(FinishReason::Eos | FinishReason::Stop))
}

/// The order in which texts are chosen that have come so far, with these scores: `step_sentence_constraint`.
fn in_turn(banks: &[usize], scores: &[f32]) -> Vec<usize> {
    // What torch makes of `banks * 100 + scores`.
    let key = |index: usize| (100 * banks[index]) as f32 + scores[index];
    let mut order: Vec<usize> = (0..banks.len()).collect();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    let mut turns: Vec<(usize, usize)> = Vec::with_capacity(order.len());
    for index in order {
        let turn = match turns.last() {
            Some(&(turn, last)) if banks[last] == banks[index] => turn + 1,
            _ => 0,
        };
        turns.push((turn, index));
    }
    turns.sort_by_key(|&(turn, _)| turn);
    turns.into_iter().map(|(_, index)| index).collect()
}
