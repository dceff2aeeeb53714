//! Emitting the operations trait of a service and the dispatch that calls it.

use std::fmt::Write;

use serde_json::Value;

use super::model::{Model, text};
use super::names;

/// The trait: one method per operation, answering 501 until it is implemented.
pub fn emit_trait(model: &Model) -> String {
    let mut out = format!(
        "pub trait {}: Send + Sync + 'static {{\n    type Call: Send + 'static;\n",
        names::trait_name(&model.name)
    );
    for (name, operation) in &model.operations {
        let (input, output) = (side(operation, "input"), side(operation, "output"));
        let _ = writeln!(
            out,
            "fn {}(&self, call: Self::Call, input: {input}) -> \
             impl Future<Output = Result<{output}, ServiceError>> + Send {{ \
             wire::unserved(&operation::{}) }}",
            names::field(name),
            names::screaming(name),
        );
    }
    out.push_str("}\n");
    out
}

/// The switch from an operation's index to the method, with decoding in front of it.
pub fn emit_dispatch(model: &Model) -> String {
    let mut arms = String::new();
    for (index, (name, _)) in model.operations.iter().enumerate() {
        let method = names::field(name);
        let _ = writeln!(arms, "{index} => wire::serve(route, request, |input| service.{method}(call, input)),");
    }
    format!(
        "pub fn dispatch<'a, S: {}>(service: &'a S, call: S::Call, route: &wire::Route, \
         request: &wire::Request<'_>) -> wire::Reply<'a> {{\n    match route.operation.index {{\n\
         {arms}_ => wire::unknown_reply(route),\n    }}\n}}\n",
        names::trait_name(&model.name)
    )
}

/// The list of all operations with their types, for tests that go through every one.
pub fn emit_each(model: &Model) -> String {
    let mut calls = String::new();
    for (name, operation) in &model.operations {
        let (input, output) = (side(operation, "input"), side(operation, "output"));
        let _ = writeln!(calls, "each.each::<{input}, {output}>(&operation::{});", names::screaming(name));
    }
    format!("pub fn each_operation<E: crate::Each>(each: &mut E) {{\n{calls}}}\n")
}

fn side(operation: &Value, side: &str) -> String {
    match text(&operation[side], "shape") {
        "" => "()".to_owned(),
        shape => names::type_name(shape),
    }
}
