//! Conditions joined by `&&`, `||` and parentheses: `()` before `&&` before `||`.

use super::{PatternError, scan::Scanner};

/// How deep parentheses may be.
const MAX_DEPTH: usize = 32;

#[derive(Clone, Debug)]
pub(super) enum Expression<C> {
    Condition(C),
    All(Vec<Expression<C>>),
    Any(Vec<Expression<C>>),
}

impl<C> Expression<C> {
    /// Reads an expression; `condition` reads a single condition.
    pub fn parse<F>(scanner: &mut Scanner<'_>, condition: &mut F) -> Result<Self, PatternError>
    where
        F: FnMut(&mut Scanner<'_>) -> Result<C, PatternError>,
    {
        Self::any(scanner, condition, MAX_DEPTH)
    }

    fn any<F>(scanner: &mut Scanner<'_>, condition: &mut F, depth: usize) -> Result<Self, PatternError>
    where
        F: FnMut(&mut Scanner<'_>) -> Result<C, PatternError>,
    {
        let mut parts = vec![Self::all(scanner, condition, depth)?];
        while joined(scanner, "||") {
            parts.push(Self::all(scanner, condition, depth)?);
        }
        Ok(one_or(parts, Self::Any))
    }

    fn all<F>(scanner: &mut Scanner<'_>, condition: &mut F, depth: usize) -> Result<Self, PatternError>
    where
        F: FnMut(&mut Scanner<'_>) -> Result<C, PatternError>,
    {
        let mut parts = vec![Self::single(scanner, condition, depth)?];
        while joined(scanner, "&&") {
            parts.push(Self::single(scanner, condition, depth)?);
        }
        Ok(one_or(parts, Self::All))
    }

    fn single<F>(scanner: &mut Scanner<'_>, condition: &mut F, depth: usize) -> Result<Self, PatternError>
    where
        F: FnMut(&mut Scanner<'_>) -> Result<C, PatternError>,
    {
        scanner.skip_space();
        if !scanner.skip("(") {
            return Ok(Self::Condition(condition(scanner)?));
        }
        let depth = depth.checked_sub(1).ok_or(PatternError::Invalid)?;
        let inner = Self::any(scanner, condition, depth)?;
        scanner.skip_space();
        if scanner.skip(")") { Ok(inner) } else { Err(PatternError::Invalid) }
    }

    /// Whether it holds, given what each condition says.
    pub fn holds(&self, says: &impl Fn(&C) -> bool) -> bool {
        match self {
            Self::Condition(condition) => says(condition),
            Self::All(parts) => parts.iter().all(|part| part.holds(says)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(says)),
        }
    }
}

fn joined(scanner: &mut Scanner<'_>, operator: &str) -> bool {
    scanner.skip_space();
    scanner.skip(operator)
}

fn one_or<C>(mut parts: Vec<Expression<C>>, many: fn(Vec<Expression<C>>) -> Expression<C>) -> Expression<C> {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}
