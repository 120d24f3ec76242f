//! Source text as a flat list of tokens, without whitespace and comments.

use std::ops::Range;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

/// A token, and the bytes of the text that it came from.
#[derive(Debug)]
pub struct Token {
    pub text: String,
    pub bytes: Range<usize>,
}

impl Token {
    fn new(text: impl Into<String>, span: Span) -> Token {
        Token { text: text.into(), bytes: span.byte_range() }
    }
}

/// Stands in a pattern for everything up to the closing bracket behind it.
pub const REST: &str = "…";

/// The tokens of a pattern. Its brackets must be balanced.
pub fn pattern(text: &str) -> Result<Vec<Token>, String> {
    // The lexer rejects `…`, so a name stands in for it here.
    const NAME: &str = "__rest__";
    let named = text.replace(REST, NAME);
    let stream: TokenStream =
        named.parse().map_err(|_| format!("`{text}` is no list of tokens with balanced brackets"))?;
    let mut tokens = flat(stream, &named);
    for at in 0..tokens.len() {
        if tokens[at].text == NAME {
            tokens[at].text = REST.into();
            if !tokens.get(at + 1).is_some_and(|next| is_closing(&next.text)) {
                return Err(format!("`{REST}` must stand before a closing bracket in `{text}`"));
            }
        }
    }
    Ok(tokens)
}

/// The tokens of a stream that was parsed from `text`.
pub fn flat(stream: TokenStream, text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    flatten(stream, text, &mut tokens);
    tokens
}

fn flatten(stream: TokenStream, text: &str, tokens: &mut Vec<Token>) {
    for tree in stream {
        // The lexer turns a documentation comment into an attribute. All of its tokens have the
        // span of the comment.
        let origin = text.get(tree.span().byte_range()).unwrap_or_default();
        if origin.starts_with("//") || origin.starts_with("/*") {
            continue;
        }
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                tokens.push(Token::new(open, group.span_open()));
                flatten(group.stream(), text, tokens);
                tokens.push(Token::new(close, group.span_close()));
            }
            other => tokens.push(Token::new(other.to_string(), other.span())),
        }
    }
}

/// Where a pattern occurs, as bytes of the text.
#[derive(Debug)]
pub struct Match {
    pub bytes: Range<usize>,
    /// What each `…` of the pattern stands for.
    pub rests: Vec<Range<usize>>,
}

/// Every place where the pattern occurs in `tokens`.
pub fn matches(tokens: &[Token], pattern: &[Token]) -> Vec<Match> {
    (0..tokens.len()).filter_map(|at| match_at(&tokens[at..], pattern)).collect()
}

fn match_at(tokens: &[Token], pattern: &[Token]) -> Option<Match> {
    let (mut end, mut rests) = (0_usize, Vec::new());
    for wanted in pattern {
        if wanted.text == REST {
            let start = tokens.get(end.checked_sub(1)?)?.bytes.end;
            end += closing(tokens.get(end..)?)?;
            rests.push(start..tokens[end].bytes.start);
        } else if tokens.get(end)?.text == wanted.text {
            end += 1;
        } else {
            return None;
        }
    }
    let bytes = tokens.first()?.bytes.start..tokens.get(end.checked_sub(1)?)?.bytes.end;
    Some(Match { bytes, rests })
}

/// Where the bracket closes that was open before these tokens.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        if is_closing(&token.text) {
            if depth == 0 {
                return Some(at);
            }
            depth -= 1;
        } else if ["(", "[", "{"].contains(&token.text.as_str()) {
            depth += 1;
        }
    }
    None
}

fn is_closing(text: &str) -> bool {
    [")", "]", "}"].contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, wanted: &str) -> Vec<String> {
        let places = matches(&flat(text.parse().unwrap(), text), &pattern(wanted).unwrap());
        places.into_iter().map(|place| text[place.bytes].to_string()).collect()
    }

    #[test]
    fn line_breaks_and_comments_do_not_matter() {
        let text = "f(a, // the first\n  /* and */ b);\n/// a documentation comment\nlet ü = 'x';";
        assert_eq!(found(text, "(a,b)"), ["(a, // the first\n  /* and */ b)"]);
        assert_eq!(found(text, "; let"), [";\n/// a documentation comment\nlet"]);
        assert_eq!(found(text, "'x'"), ["'x'"]);
    }

    #[test]
    fn every_occurrence_is_found() {
        assert_eq!(found("a + b; a + bc; (a+b)", "a + b").len(), 2);
        assert!(found("ab", "a").is_empty());
        assert!(found("\"a + b\"", "a + b").is_empty());
    }

    #[test]
    fn an_ellipsis_stands_for_the_rest_of_a_bracket() {
        let text = "if a(b, [c(1)]) { ü(d); } else { e }";
        assert_eq!(found(text, "if a(…) {…}"), ["if a(b, [c(1)]) { ü(d); }"]);
        assert_eq!(found(text, "(b, …)"), ["(b, [c(1)])"]);
        assert_eq!(found(text, "else {e …}"), ["else { e }"]);
        assert!(found(text, "(b …) else").is_empty());
        let places = matches(&flat(text.parse().unwrap(), text), &pattern("a(…) {…}").unwrap());
        let rests: Vec<&str> = places[0].rests.iter().map(|rest| &text[rest.clone()]).collect();
        assert_eq!(rests, ["b, [c(1)]", " ü(d); "]);
    }

    #[test]
    fn patterns_that_cannot_match_are_refused() {
        for text in ["if a {", "a …", "(… b)"] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}
