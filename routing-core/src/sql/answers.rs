//! Answers to a question about texts, kept for those that come again.

use std::cell::RefCell;
use std::fmt;

/// So many answers are kept.
const PLACES: usize = 64;

/// Longer texts are asked about each time: an answer keeps its text.
const LONGEST: usize = 2_048;

/// The answers to a question about texts, kept for those that come again: an ORM sends the same few texts over and over. An
/// answer is given from memory for the very same text alone, and a text is kept when it comes twice in a row in its place.
///
/// At most 64 answers are kept, about texts of at most 2 kB each. It is for one thread; nobody waits for anybody.
///
/// ```
/// use routing_core::sql::{Answers, keeps_session_state};
///
/// let answers = Answers::to(keeps_session_state);
/// assert!(answers.about("SET search_path = tenant_7"));
/// assert!(answers.about("SET search_path = tenant_7"));
/// ```
pub struct Answers<F, T> {
    question: F,
    places: RefCell<Vec<Place<T>>>,
}

struct Place<T> {
    /// Of the text that came last.
    hash: u64,
    /// The text that came twice in a row, and the answer.
    kept: Option<(Box<str>, T)>,
}

impl<F, T> Answers<F, T>
where
    F: Fn(&str) -> T,
    T: Copy,
{
    /// None yet. The question's answer must follow from the text alone.
    #[must_use]
    pub const fn to(question: F) -> Self {
        Self { question, places: RefCell::new(Vec::new()) }
    }

    /// The answer about a text.
    pub fn about(&self, text: &str) -> T {
        let Ok(mut places) = self.places.try_borrow_mut() else { return (self.question)(text) };
        if text.len() > LONGEST {
            return (self.question)(text);
        }
        if places.is_empty() {
            places.resize_with(PLACES, || Place { hash: 0, kept: None });
        }
        let hash = hash(text);
        // The upper bits: all that came before has a part in them.
        let place = &mut places[(hash >> 58) as usize];
        if place.hash == hash
            && let Some((kept, answer)) = &place.kept
            && **kept == *text
        {
            return *answer;
        }
        let answer = (self.question)(text);
        place.kept = (place.hash == hash).then(|| (text.into(), answer));
        place.hash = hash;
        answer
    }
}

/// Eight bytes at a time, each folded in by a multiplication (Fibonacci hashing: Knuth, "The Art of Computer Programming",
/// volume 3, section 6.4). Texts that were made to collide cost the question, and a copy of the text.
fn hash(text: &str) -> u64 {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let hash = words.iter().fold(text.len() as u64, |hash, word| fold(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(hash, u64::from_le_bytes(last))
}

fn fold(hash: u64, word: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    (hash.rotate_left(29) ^ word).wrapping_mul(GOLDEN)
}

impl<F, T> fmt::Debug for Answers<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use super::*;

    /// Answers with the text's length, and counts.
    fn counting(asked: &Cell<u32>) -> Answers<impl Fn(&str) -> usize, usize> {
        Answers::to(|text: &str| {
            asked.set(asked.get() + 1);
            text.len()
        })
    }

    fn asked_about(answers: &Answers<impl Fn(&str) -> usize, usize>, asked: &Cell<u32>, text: &str) -> u32 {
        let before = asked.get();
        assert_eq!(answers.about(text), text.len());
        asked.get() - before
    }

    #[test]
    fn a_text_is_asked_about_twice_at_most_as_long_as_no_other_takes_its_place() {
        let asked = Cell::new(0);
        let answers = counting(&asked);
        let about = |text| asked_about(&answers, &asked, text);
        let times: Vec<u32> = (0..5).map(|_| about("SELECT 1")).collect();
        assert_eq!(times, [1, 1, 0, 0, 0]);
        let long = "x".repeat(LONGEST + 1);
        assert_eq!((0..3).map(|_| about(&long)).sum::<u32>(), 3);
        let longest = "x".repeat(LONGEST);
        assert_eq!((0..3).map(|_| about(&longest)).sum::<u32>(), 2);
    }

    #[test]
    fn texts_that_differ_in_one_byte_anywhere_have_answers_of_their_own() {
        let asked = Cell::new(0);
        let answers = counting(&asked);
        let text = "SELECT \"stock\".\"id\" FROM \"stock\" WHERE \"stock\".\"id\" = $1 LIMIT $2";
        let mut hashes = BTreeSet::from([hash(text)]);
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] ^= 1;
            let other = String::from_utf8(other).unwrap();
            assert!(hashes.insert(hash(&other)), "{other}");
            (0..3).for_each(|_| assert!(asked_about(&answers, &asked, text) <= 1));
            assert_eq!(asked_about(&answers, &asked, &other), 1, "{other}");
        }
        assert_ne!(hash("a"), hash("a\0"), "and in their length");
    }

    #[test]
    fn texts_of_one_hash_are_told_apart() {
        let text = "SELECT a FROM b;";
        let word = |text: &str| u64::from_le_bytes(text.as_bytes().try_into().unwrap());
        let after = |first: u64| fold(text.len() as u64, first).rotate_left(29);
        let (first, second) = text.split_at(8);
        // Another beginning, and the end that makes up for it, where that is text.
        let other = (0..1_000_000).find_map(|number| {
            let beginning = format!("{number:<8}");
            let end = after(word(first)) ^ word(second) ^ after(word(&beginning));
            let end = end.to_le_bytes();
            end.is_ascii().then(|| beginning + &String::from_utf8_lossy(&end))
        });
        let other = other.expect("one in 256 is");
        assert_eq!((hash(&other), other.len()), (hash(text), text.len()));
        let answers = Answers::to(|text: &str| text.starts_with("SELECT"));
        for _ in 0..3 {
            assert!(answers.about(text) && answers.about(text) && answers.about(text));
            assert!(!answers.about(&other) && !answers.about(&other) && !answers.about(&other));
        }
    }

    #[test]
    fn whatever_comes_in_whatever_order_is_answered_as_if_it_were_asked() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let asked = Cell::new(0);
        let answers = counting(&asked);
        let texts: Vec<String> = (0..200).map(|number| "t".repeat(number) + &number.to_string()).collect();
        for round in 0..20_000 {
            // A few of them most of the time.
            let most = if random.u8(0..4) > 0 { 20 } else { texts.len() };
            let text = &texts[random.usize(..most)];
            assert_eq!(answers.about(text), text.len(), "seed {seed}, round {round}");
        }
        assert!(asked.get() < 12_000, "seed {seed}: {}", asked.get());
    }

    #[test]
    fn a_question_that_asks_itself_is_answered() {
        thread_local! {
            static DEPTH: Answers<fn(&str) -> usize, usize> = const { Answers::to(depth) };
        }
        fn depth(text: &str) -> usize {
            if text.is_empty() { 0 } else { 1 + DEPTH.with(|answers| answers.about(&text[1..])) }
        }
        assert_eq!(DEPTH.with(|answers| answers.about("four")), 4);
    }
}
