//! Statements that looked like reads and that only the primary could run.

use std::collections::HashSet;

use arc_swap::ArcSwap;

use crate::sql::{Shape, shape};

/// The most shapes that are remembered. An application has some hundreds of statements; one that makes up new ones without
/// end must not fill the memory.
const MOST: usize = 1_000;

/// Shapes of statements (see [`sql::shape`](crate::sql::shape)) that no standby could run. They go to the primary at once
/// from then on. Looking is free while nothing is remembered, and takes no lock.
#[derive(Debug, Default)]
pub struct Misrouted(ArcSwap<HashSet<Shape>>);

impl Misrouted {
    /// Whether a statement of this text is known to need the primary.
    #[must_use]
    pub fn knows(&self, sql: &str) -> bool {
        let shapes = self.0.load();
        !shapes.is_empty() && shapes.contains(&shape(sql))
    }

    /// Remembers the shape of a statement, unless as many as fit are known. `true` when that is news.
    pub fn remember(&self, sql: &str) -> bool {
        let found = shape(sql);
        let before = self.0.rcu(|shapes| {
            let mut shapes = HashSet::clone(shapes);
            if shapes.len() < MOST {
                shapes.insert(found);
            }
            shapes
        });
        before.len() < MOST && !before.contains(&found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_remembered_up_to_a_number() {
        let misrouted = Misrouted::default();
        assert!(!misrouted.knows("SELECT take_ticket(1)"));
        assert!(misrouted.remember("SELECT take_ticket(1)"));
        assert!(!misrouted.remember("select  take_ticket(2)"));
        assert!(misrouted.knows("SELECT take_ticket(3)"));
        for number in 0..2 * MOST {
            misrouted.remember(&format!("SELECT f{number}()"));
        }
        assert_eq!(misrouted.0.load().len(), MOST);
    }
}
