//! Where in a text something stands, for error messages. Found by walking again, so that the walk
//! that succeeds keeps no track of it.

use super::error::{JsonError, syntax};
use super::number::Form;
use super::scan::{Sink, Span, StringToken, walk};
use super::string::decode_lossy;
use crate::limits::MAX_ERROR_PATH_CHARS;

/// The keys and indexes that lead to the key or number at byte `offset`, joined by dots.
pub(super) fn path_at(text: &str, offset: usize) -> String {
    let mut trail = Trail { offset, steps: Vec::new() };
    // The walk ends in the error by which the trail stops it.
    drop(walk(text, &mut trail));
    let steps: Vec<String> = trail.steps.iter().map(|step| step.name(text)).collect();
    steps.join(".").chars().take(MAX_ERROR_PATH_CHARS).collect()
}

enum Step {
    Key(Span),
    Index(usize),
}

impl Step {
    fn name(&self, text: &str) -> String {
        match self {
            Step::Key(span) => decode_lossy(text.get(span.start + 1..span.end - 1).unwrap_or_default()),
            Step::Index(index) => index.to_string(),
        }
    }
}

struct Trail {
    offset: usize,
    steps: Vec<Step>,
}

impl Trail {
    fn stop_at(&self, at: usize) -> Result<(), JsonError> {
        if at < self.offset { Ok(()) } else { Err(syntax(at, "the path ends here")) }
    }
}

impl Sink for Trail {
    fn open_object(&mut self, at: usize) {
        self.steps.push(Step::Key(Span { start: at, end: at + 2 }));
    }

    fn close_object(&mut self, _at: usize) -> Result<(), JsonError> {
        self.steps.pop();
        Ok(())
    }

    fn open_array(&mut self, _at: usize) {
        self.steps.push(Step::Index(0));
    }

    fn close_array(&mut self, _at: usize) {
        self.steps.pop();
    }

    fn comma(&mut self) {
        if let Some(Step::Index(index)) = self.steps.last_mut() {
            *index += 1;
        }
    }

    fn key(&mut self, token: StringToken) -> Result<(), JsonError> {
        if let Some(step) = self.steps.last_mut() {
            *step = Step::Key(token.span);
        }
        self.stop_at(token.span.start)
    }

    fn number(&mut self, span: Span, _form: Form) -> Result<(), JsonError> {
        self.stop_at(span.start)
    }
}
