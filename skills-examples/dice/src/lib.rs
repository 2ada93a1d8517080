//! Rolls dice: the smallest skill, which reaches nothing and needs nobody's account.

use wasip2::random::random::get_random_u64;

use bindings::exports::examples::dice::table::{Guest, Rolled};

#[allow(clippy::pedantic, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "dice" });
}

/// More don't fit on the table.
const MOST: u32 = 100;

struct Skill;

bindings::export!(Skill with_types_in bindings);

impl Guest for Skill {
    fn roll(count: u32, sides: u32) -> Result<Rolled, String> {
        if count == 0 || count > MOST {
            return Err(format!("from 1 to {MOST} dice can be rolled, and not {count}"));
        }
        if sides == 0 {
            return Err("dice have sides".to_owned());
        }
        let dice: Vec<u32> = (0..count).map(|_| shown(get_random_u64(), sides)).collect();
        let total = dice.iter().copied().map(u64::from).sum();
        Ok(Rolled { dice, total })
    }
}

/// The side that is up. With 64 random bits, no side is up more often than others by what anyone could see.
fn shown(random: u64, sides: u32) -> u32 {
    let side = random % u64::from(sides);
    u32::try_from(side).map_or(1, |side| side + 1)
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_die_shows_each_of_its_sides_and_nothing_else() {
        let all: Vec<u32> = (0..6).map(|random| shown(random, 6)).collect();
        assert_eq!(all, [1, 2, 3, 4, 5, 6]);
        assert_eq!(shown(u64::MAX, 1), 1);
        assert!(shown(u64::MAX, u32::MAX) >= 1);
    }
}
