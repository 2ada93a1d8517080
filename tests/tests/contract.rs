//! The contract in `wit/` and the interfaces of the example skills, as the tools of the component model read them.

#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test ends where something is not as it should be")]

use std::path::Path;

use clawcoil_tests::skills::root;
use wit_parser::{Docs, Function, Resolve, TypeDefKind, TypeOwner};

/// Adds what has no docs to the list.
fn undocumented(resolve: &Resolve, of: &str, missing: &mut Vec<String>) {
    let ours = |package: Option<wit_parser::PackageId>| {
        package.is_some_and(|id| resolve.packages[id].name.to_string().starts_with(of))
    };
    let mut check = |what: String, docs: &Docs| {
        if docs.contents.as_deref().unwrap_or_default().trim().is_empty() {
            missing.push(what);
        }
    };
    for (_, package) in &resolve.packages {
        if package.name.to_string().starts_with(of) {
            check(format!("package {}", package.name), &package.docs);
        }
    }
    for (_, world) in resolve.worlds.iter().filter(|(_, world)| ours(world.package)) {
        check(format!("world {}", world.name), &world.docs);
    }
    for (_, interface) in resolve.interfaces.iter().filter(|(_, interface)| ours(interface.package)) {
        let name = interface.name.as_deref().unwrap_or_default();
        check(format!("interface {name}"), &interface.docs);
        for Function { name: function, docs, .. } in interface.functions.values() {
            check(format!("{name}.{function}"), docs);
        }
    }
    for (_, definition) in &resolve.types {
        let TypeOwner::Interface(owner) = definition.owner else { continue };
        // A type that came by `use` has its docs where it is defined.
        let used = matches!(definition.kind, TypeDefKind::Type(_));
        let Some(name) = definition.name.as_deref().filter(|_| ours(resolve.interfaces[owner].package) && !used) else {
            continue;
        };
        check(name.to_owned(), &definition.docs);
        match &definition.kind {
            TypeDefKind::Record(record) => {
                record.fields.iter().for_each(|field| check(format!("{name}.{}", field.name), &field.docs));
            }
            TypeDefKind::Variant(variant) => {
                variant.cases.iter().for_each(|case| check(format!("{name}.{}", case.name), &case.docs));
            }
            TypeDefKind::Enum(cases) => {
                cases.cases.iter().for_each(|case| check(format!("{name}.{}", case.name), &case.docs));
            }
            TypeDefKind::Flags(flags) => {
                flags.flags.iter().for_each(|flag| check(format!("{name}.{}", flag.name), &flag.docs));
            }
            _ => {}
        }
    }
}

fn contract() -> Resolve {
    let mut resolve = Resolve::new();
    resolve.push_dir(root().join("wit")).unwrap_or_else(|error| panic!("{error:#}"));
    resolve
}

#[test]
fn every_item_of_the_contract_is_documented() {
    let mut missing = Vec::new();
    undocumented(&contract(), "clawcoil:skill", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_item_of_an_example_is_documented_and_its_tools_stand_in_an_interface() {
    for skill in std::fs::read_dir(root().join("skills-examples")).unwrap() {
        let wit = skill.unwrap().path().join("wit");
        if wit.is_dir() {
            example(&wit);
        }
    }
}

fn example(wit: &Path) {
    let mut resolve = contract();
    resolve.push_dir(wit).unwrap_or_else(|error| panic!("{error:#}"));
    let mut missing = Vec::new();
    undocumented(&resolve, "examples:", &mut missing);
    assert_eq!(missing, Vec::<String>::new(), "{}", wit.display());
    for (_, world) in resolve
        .worlds
        .iter()
        .filter(|(_, world)| world.package.is_some_and(|id| resolve.packages[id].name.namespace == "examples"))
    {
        // A function at the world's root collides with the C library's names when a Rust guest is linked.
        let at_root = world.exports.values().any(|item| matches!(item, wit_parser::WorldItem::Function(_)));
        assert!(!at_root && !world.exports.is_empty(), "{}", wit.display());
    }
}

#[test]
fn no_function_of_the_contract_takes_or_gives_what_a_skill_must_not_have() {
    let text = std::fs::read_to_string(root().join("wit/skill.wit")).unwrap();
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    for word in ["refresh-token", "client-secret", "user", "url", "uri"] {
        assert!(!code.contains(word), "`{word}` stands in the contract");
    }
}
