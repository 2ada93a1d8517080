use super::super::{Change, NewGrant, Revocation, add_grant, move_pins, revoke};
use super::*;

const BEFORE: &str = r#"# Who may what. Ask Ann before you change it.

# The sales team sends mail.
[[grant]]
skill    = "mail"          # aligned by hand
approval = "none"
users    = ["alice", "bob", "team:*"]
service  = "gmail"
provider = "google"
scopes   = ["mail.send"]

# Nobody reads.
[[forbid]]
scopes = ["mail.read"]

[[grant]]   # the second
skill = "mail"
approval = "none"
users = ["alice"]
service = "hook"
provider = "hooks"
"#;

fn source() -> Source {
    Source::new("permissions.toml", BEFORE)
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_grant_is_added_at_the_end_and_nothing_else_changes() {
    let manifest = manifest(MAIL);
    let grant =
        NewGrant::for_service(&manifest.name, digest(), manifest.service("records").unwrap(), &"carl".parse().unwrap());
    let edit = add_grant(&source(), &grant).unwrap();
    assert!(edit.text.starts_with(BEFORE));
    assert!(edit.diff.iter().all(|change| matches!(change, Change::Added(..))));
    assert!(lines(&edit.diff).iter().any(|line| line.ends_with("+ users = [\"carl\"]")));
    assert!(effective(&edit.text, "carl").service(&name("records")).is_ok());
    let fresh = add_grant(&Source::new("permissions.toml", ""), &grant).unwrap();
    assert!(fresh.text.starts_with("[[grant]]\nskill = \"mail\"\n"), "{}", fresh.text);
}

#[test]
fn a_user_is_taken_out_of_a_list_and_the_comments_stay() {
    let what = Revocation { skill: &"mail".parse().unwrap(), service: Some(&name("gmail")), user: Some("alice") };
    let edit = revoke(&source(), &what).unwrap();
    assert!(effective(&edit.text, "alice").service(&name("gmail")).is_err());
    assert!(effective(&edit.text, "bob").service(&name("gmail")).is_ok());
    assert_eq!(edit.text.matches('#').count(), BEFORE.matches('#').count());
    assert_eq!(
        lines(&edit.diff),
        ["   7 - users    = [\"alice\", \"bob\", \"team:*\"]", "   7 + users    = [\"bob\", \"team:*\"]"]
    );
    assert!(edit.left.is_empty());
}

#[test]
fn a_pattern_that_still_covers_the_user_is_named() {
    let what = Revocation { skill: &"mail".parse().unwrap(), service: Some(&name("gmail")), user: Some("team:sales") };
    let edit = revoke(&source(), &what).unwrap();
    assert_eq!(edit.text, BEFORE);
    assert_eq!(edit.left.iter().map(ToString::to_string).collect::<Vec<_>>(), ["permissions.toml:4"]);
}

#[test]
fn a_grant_that_is_narrower_than_the_pattern_is_named() {
    let what = Revocation { skill: &"mail".parse().unwrap(), service: Some(&name("gmail")), user: Some("*") };
    let edit = revoke(&source(), &what).unwrap();
    assert_eq!(edit.text, BEFORE, "alice and bob are no pattern");
    assert_eq!(edit.left.iter().map(ToString::to_string).collect::<Vec<_>>(), ["permissions.toml:4"]);
}

#[test]
fn a_grant_whose_last_user_goes_is_removed_and_others_stay() {
    let what = Revocation { skill: &"mail".parse().unwrap(), service: None, user: Some("alice") };
    let edit = revoke(&source(), &what).unwrap();
    assert!(!edit.text.contains("\"hook\"") && edit.text.contains("\"bob\""));
    assert!(edit.text.contains("# Nobody reads."));
    let what = Revocation { skill: &"mail".parse().unwrap(), service: None, user: None };
    let edit = revoke(&source(), &what).unwrap();
    // What stands above a grant goes with it; what an empty line parts from it stays.
    assert!(edit.text.starts_with("# Who may what. Ask Ann before you change it.\n"), "{}", edit.text);
    assert!(!edit.text.contains("# The sales team"), "{}", edit.text);
    assert!(!edit.text.contains("[[grant]]") && edit.text.contains("[[forbid]]"));
}

#[test]
fn moving_a_pin_touches_the_grants_of_that_version_and_nothing_else() {
    let (old, new, other) = (Digest::of(b"old"), Digest::of(b"new"), Digest::of(b"other"));
    let grant = |skill: &str, digest: Digest, service: &str| {
        format!(
            "# {service}\n[[grant]]\nskill = \"{skill}\"\ndigest   =  \"{digest}\"  # approved by Ann\nusers = [\"alice\"]\nservice = \"{service}\"\nprovider = \"google\"\n"
        )
    };
    let text = [grant("mail", old, "a"), grant("mail", other, "b"), grant("chat", old, "c"), grant("mail", old, "d")];
    let edit = move_pins(&Source::new("p.toml", text.concat()), &"mail".parse().unwrap(), old, new).unwrap();
    let expected =
        [grant("mail", new, "a"), grant("mail", other, "b"), grant("chat", old, "c"), grant("mail", new, "d")];
    assert_eq!(edit.text, expected.concat());
    assert_eq!(edit.diff.len(), 4, "{:?}", edit.diff);
    let inline = format!(
        "grant = [{{ skill = \"mail\", digest = \"{old}\", users = [\"a\"], service = \"b\", provider = \"c\" }}]\n"
    );
    let edit = move_pins(&Source::new("p.toml", &*inline), &"mail".parse().unwrap(), old, new).unwrap();
    assert_eq!(edit.text, inline.replace(&old.to_string(), &new.to_string()));
}

#[test]
fn a_file_that_is_not_in_order_is_not_edited() {
    let broken = Source::new("permissions.toml", "[[grant]]\nskil = \"mail\"\n");
    let what = Revocation { skill: &"mail".parse().unwrap(), service: None, user: None };
    assert!(revoke(&broken, &what).is_err());
    let manifest = manifest(MAIL);
    let grant =
        NewGrant::for_service(&manifest.name, digest(), manifest.service("gmail").unwrap(), &"carl".parse().unwrap());
    assert!(add_grant(&broken, &grant).is_err());
}
