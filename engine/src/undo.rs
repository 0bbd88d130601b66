//! Taking steps back: what was done so far, in the order it has to be undone.
//!
//! Each step of an operation pushes what undoes it. On failure the steps run in reverse; the error that caused it is the
//! one reported, and a step that cannot be undone is logged with what is left over.

use crate::error::Result;
use std::future::Future;
use std::pin::Pin;

type Step = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The steps of one operation.
#[derive(Default)]
pub struct Undo {
    steps: Vec<(&'static str, Step)>,
}

impl Undo {
    /// Remembers how to undo what was just done; `step` runs only in [`Undo::run`].
    pub fn push(&mut self, what: &'static str, step: impl Future<Output = Result<()>> + Send + 'static) {
        self.steps.push((what, Box::pin(step)));
    }

    /// Undoes everything, last step first.
    pub async fn run(self) {
        for (what, step) in self.steps.into_iter().rev() {
            if let Err(error) = step.await {
                tracing::warn!(what, %error, "left over after a failure");
            }
        }
    }

    /// The operation succeeded: forgets the steps.
    pub fn keep(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn steps_run_in_reverse_and_all_of_them() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::default();
        for number in 1..=3 {
            let seen = Arc::clone(&seen);
            undo.push("a step", async move {
                seen.lock().unwrap().push(number);
                if number == 2 {
                    Err(Error::system("stuck"))
                } else {
                    Ok(())
                }
            });
        }
        undo.run().await;
        assert_eq!(*seen.lock().unwrap(), [3, 2, 1]);
    }
}
