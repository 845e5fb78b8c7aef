//! A bounded cache of what was asked elsewhere. An answer serves for a time; those who ask for the same at once share one
//! answer, also when it is an error, which serves nobody who comes later.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

/// Answers by key.
pub struct Fresh<K, V, E = std::convert::Infallible> {
    kept: Cache<K, Kept<V, E>>,
    life: Duration,
}

struct Kept<V, E> {
    answer: Result<V, Arc<E>>,
    since: Instant,
}

impl<V: Clone, E> Clone for Kept<V, E> {
    fn clone(&self) -> Self {
        Self { answer: self.answer.clone(), since: self.since }
    }
}

impl<K: Hash + Eq + Clone, V: Clone, E> Fresh<K, V, E> {
    /// Some `most` answers, each for `life`.
    pub fn new(most: usize, life: Duration) -> Self {
        Self { kept: Cache::new(most), life }
    }

    /// The answer, if there is a fresh one.
    pub fn get(&self, key: &K) -> Option<V> {
        self.kept.get(key).filter(|kept| kept.since.elapsed() < self.life)?.answer.ok()
    }

    /// Keeps an answer from now on.
    pub fn put(&self, key: K, value: V) {
        self.kept.insert(key, Kept { answer: Ok(value), since: Instant::now() });
    }

    /// Forgets an answer if it is as `is_unwanted` says. One that is being asked for stays.
    pub fn remove_if(&self, key: &K, is_unwanted: impl FnOnce(&V) -> bool) {
        self.kept.remove_if(key, |kept| kept.answer.as_ref().is_ok_and(is_unwanted));
    }

    /// The answer; `ask` gives it where there is no fresh one. Of those who wait for one answer, one asks; if that one is
    /// given up, another does.
    ///
    /// # Errors
    /// What `ask` says.
    pub async fn get_or_ask(&self, key: &K, ask: impl Future<Output = Result<V, E>>) -> Result<V, Arc<E>> {
        let arrived = Instant::now();
        loop {
            match self.kept.get_value_or_guard_async(key).await {
                Ok(kept) if kept.serves(arrived, self.life) => return kept.answer,
                // Another one may have put a newer one there meanwhile.
                Ok(old) => drop(self.kept.remove_if(key, |kept| kept.since == old.since)),
                Err(guard) => {
                    let answer = ask.await.map_err(Arc::new);
                    let kept = Kept { answer: answer.clone(), since: Instant::now() };
                    // It was forgotten meanwhile: then it serves those who waited, and nobody else.
                    let _ = guard.insert(kept);
                    return answer;
                }
            }
        }
    }
}

impl<V, E> Kept<V, E> {
    fn serves(&self, arrived: Instant, life: Duration) -> bool {
        match self.answer {
            Ok(_) => self.since.elapsed() < life,
            Err(_) => self.since > arrived,
        }
    }
}

#[cfg(test)]
mod tests;
