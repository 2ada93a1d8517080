//! New versions of skills: what they want beyond the version in use, and what an operator says to it.
//!
//! A version waits where a grant is pinned to the one in use: the operator has approved that one and no other. Without such a grant
//! nothing was approved, and a new version takes the place of the old one at once.

use std::path::PathBuf;

use clawcoil::audit::{Decision, Event, EventKind};
use clawcoil::diagnostic::Source;
use clawcoil::host::Home;
use clawcoil::id::SkillName;
use clawcoil::policy::{Change, Need, Permissions, move_pins};
use clawcoil::registry::{InstalledSkill, Pending, Registry, RegistryError};
use clawcoil::runtime::Runtime;
use serde_json::{Value, json};

use crate::commands::{lock_permissions, replace_file};
use crate::exit::Failure;
use crate::output::printable;

/// What became of a file of permissions.
pub(crate) struct ChangedFile {
    pub(crate) name: String,
    pub(crate) changes: Vec<Change>,
}

/// Whether a new version of this skill has to be approved.
pub(crate) fn must_be_approved(home: &Home, installed: &InstalledSkill) -> Result<bool, Failure> {
    let permissions = Permissions::parse(&home.permission_sources()?)?;
    Ok(permissions.pins(installed.name(), installed.digest))
}

/// The new version of a skill that waits, held against the one in use. Both are compiled, and nothing of them runs.
pub(crate) async fn pending(home: &Home, runtime: &Runtime, name: &SkillName) -> Result<Pending, Failure> {
    let registry = Registry::in_folder(home.skills());
    let old = registry.get(name)?;
    let new = registry.pending(name)?.ok_or_else(|| RegistryError::NothingPending(name.clone()))?;
    let (was, is) = (runtime.compile(old.component.clone()).await?, runtime.compile(new.component.clone()).await?);
    Ok(Pending::between((&old, &was), (&new, &is)))
}

/// Approves the version that was looked at: the grants that are pinned to the one in use are pinned to it, and it takes its place.
///
/// In the moment between the two, calls are refused: what is pinned to one version never holds for another.
pub(crate) fn approve(
    home: &Home,
    pending: &Pending,
    record: impl FnOnce(&Event) -> Result<(), Failure>,
) -> Result<Vec<ChangedFile>, Failure> {
    let name = &pending.manifest.name;
    let registry = Registry::in_folder(home.skills());
    let _lock = lock_permissions(home)?;
    let before = home.permission_sources()?;
    let mut after = Vec::new();
    let mut changed = Vec::new();
    for source in &before {
        let edit = move_pins(source, name, pending.installed_digest, pending.digest)?;
        after.push(Source::new(source.name(), &*edit.text));
        if !edit.diff.is_empty() {
            changed.push((source, edit));
        }
    }
    if Permissions::parse(&after)?.pins(name, pending.installed_digest) {
        let message = format!(
            "a grant is written in a form that is not edited here; write digest = \"{}\" there yourself",
            pending.digest
        );
        return Err(Failure::error(message));
    }
    let mut written: Vec<&Source> = Vec::new();
    let done = changed
        .iter()
        .try_for_each(|(source, edit)| {
            replace_file(&PathBuf::from(source.name()), &edit.text)?;
            written.push(source);
            Ok(())
        })
        .and_then(|()| registry.accept(name, pending.digest).map_err(Failure::from));
    if let Err(failure) = done {
        // Nothing is approved by halves. The first error is the one to tell.
        for source in written {
            let _ = replace_file(&PathBuf::from(source.name()), source.text());
        }
        return Err(failure);
    }
    record(&event(EventKind::SkillApproved, pending))?;
    let file = |(source, edit): (&Source, clawcoil::policy::Edit)| ChangedFile {
        name: source.name().to_owned(),
        changes: edit.diff,
    };
    Ok(changed.into_iter().map(file).collect())
}

/// Throws the version away that waits. It need not be one that can be read.
pub(crate) fn reject(
    home: &Home,
    name: &SkillName,
    record: impl FnOnce(&Event) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let registry = Registry::in_folder(home.skills());
    let digest = registry.pending(name).ok().flatten().map(|skill| skill.digest);
    registry.reject(name)?;
    record(&Event {
        decision: Decision::Denied,
        skill: Some(name.clone()),
        skill_digest: digest,
        ..Event::new(EventKind::SkillRejected)
    })
}

/// What the audit log says of a version that waits, or was approved.
pub(crate) fn event(kind: EventKind, pending: &Pending) -> Event {
    let more: Vec<String> = pending.difference.more.iter().map(ToString::to_string).collect();
    let more = if more.is_empty() { "nothing more".to_owned() } else { more.join("; ") };
    Event {
        skill: Some(pending.manifest.name.clone()),
        skill_digest: Some(pending.digest),
        detail: Some(format!("instead of {}; it wants {more}", pending.installed_digest)),
        ..Event::new(kind)
    }
}

/// For people: what waits, and what it wants otherwise.
pub(crate) fn shown(pending: &Pending) -> String {
    let Pending { manifest, installed, difference, .. } = pending;
    let lines: Vec<String> = difference.to_string().lines().map(printable).collect();
    format!(
        "{} {} waits for approval; {} stays in use.\n{}",
        manifest.name,
        manifest.version,
        installed.version,
        lines.join("\n")
    )
}

/// For programs.
pub(crate) fn to_json(pending: &Pending) -> Value {
    let needs = |needs: &[Need]| -> Value {
        let need = |need: &Need| {
            json!({
                "kind": need.kind.as_str(), "service": need.service.as_ref().map(ToString::to_string), "text": need.text,
            })
        };
        needs.iter().map(need).collect()
    };
    let Pending { manifest, digest, installed, installed_digest, difference } = pending;
    json!({
        "skill": manifest.name.as_str(),
        "skill_version": manifest.version.as_str(), "digest": digest.to_string(),
        "installed_version": installed.version.as_str(), "installed_digest": installed_digest.to_string(),
        "wants_more": difference.wants_more(),
        "more": needs(&difference.more), "less": needs(&difference.less), "words": needs(&difference.words),
    })
}
