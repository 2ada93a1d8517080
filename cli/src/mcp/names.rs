//! What a tool is called: the skill's name, an underscore, the tool's name.
//!
//! Real clients take letters, digits, `_` and `-`, put a prefix of their own before a name, and refuse more than 64 characters
//! in all. A name that would be longer than 48 is cut, and ends with a digest of the whole; it has exactly 48 then. All shorter
//! names are whole, so neither kind can be taken for the other, and what one tool is called never depends on another.

use clawcoil::id::{Digest, SkillName};

/// The longest name.
const LONGEST: usize = 48;
/// How many characters of the digest a cut name ends with: 60 bits, five a character.
const DIGEST: usize = 12;

/// The name of a tool for agents.
///
/// A skill's name has no underscore and neither has a tool's, so the first one stands between them. Hyphens of the tool's name
/// become underscores, as most tools are spelled.
pub(super) fn tool_name(skill: &SkillName, tool: &str) -> String {
    let whole = format!("{skill}_{}", tool.replace('-', "_"));
    if whole.len() < LONGEST {
        return whole;
    }
    let kept: String = whole.chars().take(LONGEST - DIGEST - 1).collect();
    format!("{kept}_{}", short_digest(&whole))
}

/// Whether any tool could be called so.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= LONGEST && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The skill that a name means, where the name is whole.
pub(super) fn skill_of(name: &str) -> Option<SkillName> {
    let (skill, _) = name.split_once('_').filter(|_| name.len() < LONGEST)?;
    skill.parse().ok()
}

/// Letters and digits that are hard to mistake, in lower case.
fn short_digest(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let digest = Digest::of(text.as_bytes());
    let letter = |byte: &u8| ALPHABET.get(usize::from(byte % 32)).copied().map_or('a', char::from);
    digest.as_bytes().iter().take(DIGEST).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn named(skill: &str, tool: &str) -> String {
        tool_name(&skill.parse().unwrap(), tool)
    }

    #[test]
    fn a_name_is_the_skills_and_the_tools_as_far_as_it_fits() {
        assert_eq!(named("gmail-send", "send"), "gmail-send_send");
        assert_eq!(named("test", "simple-text"), "test_simple_text");
        let long = named("gmail-send", &"a".repeat(60));
        assert_eq!(long.len(), 48);
        assert_eq!(long, named("gmail-send", &"a".repeat(60)), "it is always the same");
        assert_ne!(long, named("gmail-send", &"a".repeat(61)));
    }

    proptest! {
        #[test]
        fn every_client_takes_every_name_and_no_two_tools_share_one(
            tools in proptest::collection::vec(("[a-z][a-z0-9]{0,20}(-[a-z0-9]{1,20}){0,2}", "[a-z]{1,9}(-[a-z0-9]{1,9}){0,6}"), 1..60)
        ) {
            let mut seen: HashMap<String, (String, String)> = HashMap::new();
            for (skill, tool) in tools {
                let Ok(parsed) = skill.parse::<SkillName>() else { continue };
                let name = tool_name(&parsed, &tool);
                prop_assert!(is_name(&name));
                if name.len() < LONGEST {
                    prop_assert_eq!(skill_of(&name), Some(parsed));
                } else {
                    prop_assert_eq!(skill_of(&name), None);
                }
                let this = (skill, tool);
                if let Some(other) = seen.insert(name, this.clone()) {
                    prop_assert_eq!(other, this);
                }
            }
        }
    }
}
