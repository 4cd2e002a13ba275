//! The language of the scripts: the qtest protocol with loops and macros.
//!
//! ```text
//! # a comment; also after a command
//! #! -serial null              more arguments of the machine
//! inb 0x20                     a command, sent as it is
//! for i in 0..8 0x10..0x20/4 7 ranges without their end, by steps, single numbers
//!   outb 0x2f8+$i $i*0x11      in words that begin with a digit after $NAME is replaced: + - *, products first
//! end
//! def config dev reg           from now on "config 3 0x40" is the body with $dev and $reg
//!   outl 0xcf8 0x80000000+$dev*0x800+$reg
//! end
//! ```

use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;

/// More commands than this are a mistake in a loop.
const MAX_STEPS: usize = 20_000;

/// What a script comes down to.
#[derive(Debug, Default)]
pub struct Script {
    /// Arguments of the machine.
    pub args: Vec<String>,
    /// What is sent, in order.
    pub steps: Vec<Step>,
}

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Line in the script, from 1.
    pub line: usize,
    /// What is sent.
    pub command: String,
}

type Line<'a> = (usize, Vec<&'a str>);
type Variables = HashMap<String, u64>;

/// A macro: the names of its parameters, its lines.
struct Macro<'a> {
    parameters: Vec<&'a str>,
    body: Vec<Line<'a>>,
}

/// Reads a script.
///
/// # Errors
/// Says the line that is wrong.
pub fn parse(text: &str) -> Result<Script> {
    let mut script = Script::default();
    let mut lines = vec![];
    for (i, line) in text.lines().enumerate() {
        if let Some(args) = line.strip_prefix("#!") {
            script.args.extend(args.split_whitespace().map(str::to_owned));
        }
        let line = line.split_once('#').map_or(line, |(code, _)| code);
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.is_empty() {
            lines.push((i + 1, words));
        }
    }
    let mut run = Run { macros: HashMap::new(), steps: vec![] };
    run.block(&lines, &Variables::new(), 0)?;
    script.steps = run.steps;
    Ok(script)
}

struct Run<'a> {
    macros: HashMap<&'a str, Macro<'a>>,
    steps: Vec<Step>,
}

impl<'a> Run<'a> {
    fn block(&mut self, lines: &[Line<'a>], variables: &Variables, depth: usize) -> Result<()> {
        let mut rest = lines;
        while let Some(((n, words), after)) = rest.split_first() {
            let at = || format!("line {n}: {}", words.join(" "));
            rest = after;
            let (word, arguments) = (words[0], &words[1..]);
            match (word, arguments) {
                ("for", [name, "in", values @ ..]) => {
                    let body = take_body(&mut rest).with_context(at)?;
                    for value in numbers(values, variables).with_context(at)? {
                        let mut inner = variables.clone();
                        inner.insert((*name).to_owned(), value);
                        self.block(body, &inner, depth)?;
                    }
                }
                ("def", [name, parameters @ ..]) => {
                    let body = take_body(&mut rest).with_context(at)?.to_vec();
                    self.macros.insert(name, Macro { parameters: parameters.to_vec(), body });
                }
                ("for" | "def" | "end", _) => bail!("{}: not expected here", at()),
                _ if self.macros.contains_key(word) => {
                    ensure!(depth < 8, "{}: macros without end", at());
                    let Macro { parameters, body } = &self.macros[word];
                    ensure!(parameters.len() == arguments.len(), "{}: {} arguments", at(), parameters.len());
                    let mut inner = Variables::new();
                    for (name, word) in parameters.iter().zip(arguments) {
                        let value = evaluate(&replace(word, variables).with_context(at)?).with_context(at)?;
                        inner.insert((*name).to_owned(), value);
                    }
                    self.block(&body.clone(), &inner, depth + 1)?;
                }
                _ => {
                    let command = self.command(words, variables).with_context(at)?;
                    self.steps.push(Step { line: *n, command });
                    ensure!(self.steps.len() <= MAX_STEPS, "{}: more than {MAX_STEPS} commands", at());
                }
            }
        }
        Ok(())
    }

    fn command(&self, words: &[&str], variables: &Variables) -> Result<String> {
        let word = |w: &&str| -> Result<String> {
            let text = replace(w, variables)?;
            let plain = !text.starts_with(|c: char| c.is_ascii_digit()) || !text.contains(['+', '-', '*']);
            Ok(if plain { text } else { format!("{:#x}", evaluate(&text)?) })
        };
        Ok(words.iter().map(word).collect::<Result<Vec<String>>>()?.join(" "))
    }
}

/// The lines up to the `end` of a block that has begun.
fn take_body<'b, 'a>(rest: &mut &'b [Line<'a>]) -> Result<&'b [Line<'a>]> {
    let mut depth = 0;
    for (i, (_, words)) in rest.iter().enumerate() {
        match words[0] {
            "for" | "def" => depth += 1,
            "end" if depth == 0 => {
                let body = &rest[..i];
                *rest = &rest[i + 1..];
                return Ok(body);
            }
            "end" => depth -= 1,
            _ => {}
        }
    }
    bail!("no 'end'")
}

/// The numbers of a `for`.
fn numbers(words: &[&str], variables: &Variables) -> Result<Vec<u64>> {
    let mut values = vec![];
    for word in words {
        let text = replace(word, variables)?;
        let Some((first, rest)) = text.split_once("..") else {
            values.push(evaluate(&text)?);
            continue;
        };
        let (end, step) = rest.split_once('/').unwrap_or((rest, "1"));
        let step = evaluate(step)?;
        ensure!(step > 0, "step 0");
        values.extend((evaluate(first)?..evaluate(end)?).step_by(step as usize));
    }
    ensure!(!values.is_empty(), "no values");
    Ok(values)
}

/// `$NAME` becomes its value, in hexadecimal.
fn replace(word: &str, variables: &Variables) -> Result<String> {
    let mut parts = word.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
        let (name, after) = part.split_at(end);
        let value = variables.get(name).with_context(|| format!("no variable '{name}'"))?;
        text += &format!("{value:#x}{after}");
    }
    Ok(text)
}

/// Sums and differences of products, wrapping at 64 bits.
fn evaluate(text: &str) -> Result<u64> {
    let mut sum = 0u64;
    let mut rest = text;
    let mut minus = false;
    loop {
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let mut product = 1u64;
        for factor in rest[..end].split('*') {
            let hex = factor.strip_prefix("0x");
            let value = hex.map_or_else(|| factor.parse(), |h| u64::from_str_radix(h, 16));
            product = product.wrapping_mul(value.with_context(|| format!("'{factor}' is not a number"))?);
        }
        sum = if minus { sum.wrapping_sub(product) } else { sum.wrapping_add(product) };
        let Some(sign) = rest[end..].chars().next() else { return Ok(sum) };
        minus = sign == '-';
        rest = &rest[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<String> {
        parse(text).unwrap().steps.into_iter().map(|s| s.command).collect()
    }

    #[test]
    fn loops_and_macros_unfold() {
        let text = "#! -serial null\nfor i in 0..2 8..12/2\n  outb 0x3f8+$i 1\nend # of it\n\
            def cfg dev reg\n  outl 0xcf8 0x80000000+$dev*0x800+$reg\nend\ncfg 3 0x40-4\n";
        let expected = ["outb 0x3f8 1", "outb 0x3f9 1", "outb 0x400 1", "outb 0x402 1", "outl 0xcf8 0x8000183c"];
        assert_eq!(commands(text), expected);
        assert_eq!(parse(text).unwrap().args, ["-serial", "null"]);
        assert_eq!(parse(text).unwrap().steps[4].line, 6);
    }

    #[test]
    fn paths_are_left_alone() {
        assert_eq!(commands("irq_intercept_in /machine/a-b[0]"), ["irq_intercept_in /machine/a-b[0]"]);
        assert_eq!(commands("for i in 1\nclock_step $i\nend"), ["clock_step 0x1"]);
    }

    #[test]
    fn mistakes_name_their_line() {
        for text in ["inb $x", "for i in 0..2\ninb 1", "end", "def f a\nend\nf", "outb 0x2g+1 1", "def f\nf\nend\nf"] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains("line "), "{error}");
        }
    }
}
