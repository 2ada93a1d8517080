//! The type of a value that can be written as JSON: a tree of our own, made once from the component's types.

use std::fmt;

use wasmtime::component::Type;

/// How deep a type may be nested.
const DEEPEST: usize = 64;

/// A type whose values can be written as JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Bool,
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    Float32,
    Float64,
    Char,
    String,
    /// `list<u8>`, in base64.
    Bytes,
    List(Box<Shape>),
    Record(Vec<(String, Shape)>),
    Tuple(Vec<Shape>),
    Variant(Vec<(String, Option<Shape>)>),
    Enum(Vec<String>),
    Option(Box<Shape>),
    Result(Box<(Option<Shape>, Option<Shape>)>),
    Flags(Vec<String>),
}

/// Why a function can't be called from JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotJson {
    /// A handle, which lives only inside the sandbox.
    Resource,
    /// A stream, a future or an error context.
    Stream,
    /// A type that this host's WebAssembly features leave out.
    Feature,
    /// Nested more deeply than allowed.
    TooDeep,
    /// Larger than allowed when written out.
    TooLarge,
    /// A function of an async type.
    Async,
    /// More results than one.
    Results,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resource => "it takes or gives a resource, which lives only inside the sandbox",
            Self::Stream => "it takes or gives a stream, a future or an error context, which JSON has not",
            Self::Feature => "it uses a type that this host does not support",
            Self::TooDeep => "its types are nested more than 64 deep",
            Self::TooLarge => "its types are too large when written out",
            Self::Async => "it is an async function, which this host does not support",
            Self::Results => "it gives more than one result",
        })
    }
}

impl Shape {
    /// The shape of a component's type. Each part of it costs one of `budget`, because a few types that are used by each
    /// other can stand for a tree without end.
    pub(super) fn of(ty: &Type, budget: &mut usize) -> Result<Self, NotJson> {
        Self::nested(ty, budget, DEEPEST)
    }

    fn nested(ty: &Type, budget: &mut usize, depth: usize) -> Result<Self, NotJson> {
        let depth = depth.checked_sub(1).ok_or(NotJson::TooDeep)?;
        *budget = budget.checked_sub(1).ok_or(NotJson::TooLarge)?;
        let mut shape = |ty: &Type| Self::nested(ty, budget, depth);
        Ok(match ty {
            Type::Bool => Self::Bool,
            Type::S8 => Self::S8,
            Type::U8 => Self::U8,
            Type::S16 => Self::S16,
            Type::U16 => Self::U16,
            Type::S32 => Self::S32,
            Type::U32 => Self::U32,
            Type::S64 => Self::S64,
            Type::U64 => Self::U64,
            Type::Float32 => Self::Float32,
            Type::Float64 => Self::Float64,
            Type::Char => Self::Char,
            Type::String => Self::String,
            Type::List(list) => match list.ty() {
                Type::U8 => Self::Bytes,
                item => Self::List(Box::new(shape(&item)?)),
            },
            Type::Record(record) => Self::Record(
                record
                    .fields()
                    .map(|field| Ok((field.name.to_owned(), shape(&field.ty)?)))
                    .collect::<Result<_, _>>()?,
            ),
            Type::Tuple(tuple) => Self::Tuple(tuple.types().map(|ty| shape(&ty)).collect::<Result<_, _>>()?),
            Type::Variant(variant) => Self::Variant(
                variant
                    .cases()
                    .map(|case| Ok((case.name.to_owned(), case.ty.as_ref().map(&mut shape).transpose()?)))
                    .collect::<Result<_, _>>()?,
            ),
            Type::Enum(cases) => Self::Enum(names(cases.names(), budget)?),
            Type::Option(option) => Self::Option(Box::new(shape(&option.ty())?)),
            Type::Result(result) => {
                let ok = result.ok().as_ref().map(&mut shape).transpose()?;
                let err = result.err().as_ref().map(&mut shape).transpose()?;
                Self::Result(Box::new((ok, err)))
            }
            Type::Flags(flags) => Self::Flags(names(flags.names(), budget)?),
            Type::Own(_) | Type::Borrow(_) => return Err(NotJson::Resource),
            Type::Future(_) | Type::Stream(_) | Type::ErrorContext => return Err(NotJson::Stream),
            Type::Map(_) | Type::FixedLengthList(_) => return Err(NotJson::Feature),
        })
    }

    /// Whether `null` is a value of this shape.
    pub(super) fn takes_null(&self) -> bool {
        matches!(self, Self::Option(_))
    }
}

fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>, budget: &mut usize) -> Result<Vec<String>, NotJson> {
    *budget = budget.checked_sub(names.len()).ok_or(NotJson::TooLarge)?;
    Ok(names.map(str::to_owned).collect())
}
