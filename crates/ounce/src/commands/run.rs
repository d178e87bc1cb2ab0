//! `ounce run`: continues a text, answers a message, or chats.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::bail;
use ounce_engine::draft::model::same_vocabulary;
use ounce_engine::generate::Finish;
use ounce_engine::sample::TokenLogprob;
use ounce_engine::{Engine, Mode, Sampling, Session};
use ounce_lab::bench::peak_resident_bytes;
use ounce_model::Model;
use ounce_model::chat::{ChatTemplate, Message, RenderOptions};
use ounce_model::tokenizer::Tokenizer;
use serde::Serialize;

use crate::chat;
use crate::cli::Globals;
use crate::compute::ComputeArgs;
use crate::failure::Outcome;
use crate::generation::{self, Answer, DEFAULT_MAX_TOKENS, Request};
use crate::interrupt::Watch;
use crate::sampling::SamplingArgs;
use crate::{output, source, text_input, units};

/// Continue a text or chat with a model
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce run \"Once upon a time\"                     the built-in model goes on with the text
  ounce run ./SmolLM2-135M-Instruct                chat on the terminal
  ounce run org/name:Q4_K_M \"Name three rivers.\"   one answer
  ounce run ./model.gguf - < letter.txt            the prompt comes from stdin
  ounce run ./base --raw --greedy -n 50 \"It was\"   go on with the text itself
  ounce run ./folder --quant q4_0 \"Why?\"           quantize the weights while loading
A model with a chat template answers the prompt as a message; other models, and --raw, go on with the text.")]
pub struct Args {
    /// Folder, .gguf file, llama2.c .bin, `org/name[@revision][:QUANT]` pulled before, or `builtin`. A single
    /// argument that is none of these is a prompt for the built-in model
    model: Option<String>,
    /// The prompt; `-` reads stdin. Without it: stdin if something is piped in, else a dialogue on the terminal
    prompt: Option<String>,
    /// Tokens to generate at most [default: 256 for texts; for chats until the answer ends]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Instruction that stands before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Go on with the prompt as it is, also if the model has a chat template
    #[arg(long, visible_alias = "no-chat", conflicts_with = "system")]
    raw: bool,
    /// End the answer where this text would appear; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Report the N likeliest tokens at each step with their log-probabilities
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// A smaller model with the same tokenizer that guesses ahead where that is faster; what is written stays the same
    #[arg(long, value_name = "MODEL")]
    draft_model: Option<String>,
    /// Report times, speeds and memory on stderr
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// A model that is ready to answer, and how it shall.
pub struct Setup<'a> {
    /// What runs it.
    pub engine: &'a Engine,
    /// What guesses for it.
    pub draft: Option<&'a Engine>,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat template, unless the text itself is to be continued.
    pub template: Option<&'a ChatTemplate>,
    /// Tokens that end an answer.
    pub end_ids: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Tokens of an answer at most.
    pub max_tokens: Option<usize>,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// Likeliest tokens to report.
    pub top_logprobs: Option<usize>,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: String,
    prompt: &'a str,
    text: &'a str,
    finish: Finish,
    prompt_tokens: usize,
    tokens: Vec<u32>,
    sampling: &'a Sampling,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<StepReport>>,
    timings: Timings,
}

#[derive(Debug, Serialize)]
struct StepReport {
    #[serde(flatten)]
    chosen: TokenLogprob,
    piece: String,
    likeliest: Vec<(TokenLogprob, String)>,
}

#[derive(Debug, Serialize)]
struct Timings {
    load_seconds: f64,
    prompt_seconds: f64,
    prompt_tokens_per_second: f64,
    decode_seconds: f64,
    decode_tokens_per_second: f64,
    /// Tokens that a draft model guessed, and those that were right.
    #[serde(skip_serializing_if = "Option::is_none")]
    drafted_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_tokens: Option<usize>,
    kv_cache_bytes: usize,
    peak_resident_bytes: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be opened, is an encoder, or has no tokenizer.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let (reference, given) = match (&args.model, &args.prompt) {
        (Some(model), prompt) if prompt.is_some() || source::is_reference(model) => {
            (model.as_str(), prompt.as_deref())
        }
        (prompt, _) => {
            output::note(&format!(
                "no model is named; using the built-in {}",
                ounce_lab::builtin::LANGUAGE.name
            ));
            (source::BUILT_IN, prompt.as_deref())
        }
    };
    let start = Instant::now();
    let model = source::open(reference)?;
    if !model.spec.causal {
        bail!("{reference} is an encoder and writes no text; use ounce embed or ounce logits");
    }
    let engine = args.compute.load(&model, Mode::fast())?;
    let draft = args.draft_model.as_deref().map(|it| args.draft(it, reference, &model)).transpose()?;
    let load_time = start.elapsed();
    let sampling = args.sampling.resolve(&model.generation)?;
    let setup = Setup {
        engine: &engine,
        draft: draft.as_ref(),
        tokenizer: source::tokenizer(&model)?,
        template: model.chat.as_ref().filter(|_| !args.raw),
        end_ids: model.end_ids(),
        sampling,
        max_tokens: args.max_tokens,
        stops: args.stop.clone(),
        top_logprobs: args.logprobs,
    };
    if args.system.is_some() && setup.template.is_none() {
        bail!("{reference} has no chat template, so --system has no meaning; put the text into the prompt");
    }
    if given.is_none() && text_input::stdin_is_terminal() {
        if globals.json {
            bail!("--json needs a prompt; give one as an argument or pipe it in");
        }
        chat::talk(&setup, args.system, args.verbose)?;
        return Ok(Outcome::Done);
    }
    let prompt = text_input::given_or_stdin(given, "prompt")?;
    one_shot(&setup, &args, &prompt, &model, load_time, globals)
}

impl Args {
    /// Loads the model that guesses.
    fn draft(&self, reference: &str, large: &str, model: &Model) -> anyhow::Result<Engine> {
        let draft = source::open(reference)?;
        same_vocabulary((large, source::tokenizer(model)?), (reference, source::tokenizer(&draft)?))?;
        self.compute.load_draft(&draft)
    }
}

fn one_shot(
    setup: &Setup<'_>,
    args: &Args,
    prompt: &str,
    model: &Model,
    load_time: Duration,
    globals: &Globals,
) -> anyhow::Result<Outcome> {
    let ids = match setup.template {
        Some(template) => {
            let mut messages: Vec<Message> =
                args.system.iter().map(|text| Message::new("system", text)).collect();
            messages.push(Message::new("user", prompt));
            setup.conversation_ids(template, &messages)?
        }
        None => setup.tokenizer.encode(prompt, true)?,
    };
    if setup.sampling.temperature > 0.0 && !globals.json {
        output::note(&format!("seed {}", setup.sampling.seed));
    }
    // On a terminal a continued text is shown whole; a pipe gets what is new.
    if setup.template.is_none() && !globals.json && std::io::stdout().is_terminal() {
        output::print(prompt)?;
    }
    let mut session = setup.engine.session();
    let show = |text: &str| if globals.json || text.is_empty() { Ok(()) } else { output::print(text) };
    let answer = setup.answer(&mut session, &ids, show)?;
    let timings = Timings::of(&answer, load_time, session.cache_bytes());
    if globals.json {
        output::json(&Report {
            model: model.origin.path.display().to_string(),
            prompt,
            text: &answer.text,
            finish: answer.finish,
            prompt_tokens: ids.len(),
            tokens: answer.steps.iter().map(|step| step.id).collect(),
            sampling: &setup.sampling,
            logprobs: setup.top_logprobs.map(|_| step_reports(setup.tokenizer, &answer)),
            timings,
        })?;
        return Ok(Outcome::Done);
    }
    if !answer.text.ends_with('\n') || std::io::stdout().is_terminal() {
        output::line("")?;
    }
    if setup.top_logprobs.is_some() {
        print_logprobs(setup.tokenizer, &answer)?;
    }
    if args.verbose {
        timings.note(&answer);
    }
    Ok(Outcome::Done)
}

impl Setup<'_> {
    /// The ids of a conversation that ends where the answer begins.
    ///
    /// # Errors
    /// If the template refuses the messages.
    pub fn conversation_ids(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
    ) -> anyhow::Result<Vec<u32>> {
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        let text = template.render(messages, &options)?;
        // The template has already put in the tokens that begin a text.
        Ok(self.tokenizer.encode(&text, false)?)
    }

    /// Answers behind `ids`; see [`generation::answer`].
    ///
    /// # Errors
    /// As there.
    fn answer(
        &self,
        session: &mut Session<'_>,
        ids: &[u32],
        on_text: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Answer> {
        let request = self.request(ids, &self.sampling);
        generation::answer(session, self.draft, self.tokenizer, &request, None, on_text)
    }

    /// Answers in a dialogue: each turn draws anew, and `watch` ends the answer.
    ///
    /// # Errors
    /// As [`generation::answer`].
    pub fn answer_turn(
        &self,
        turn: u64,
        session: &mut Session<'_>,
        ids: &[u32],
        watch: &Watch,
        on_text: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Answer> {
        let sampling = Sampling { seed: self.sampling.seed.wrapping_add(turn), ..self.sampling.clone() };
        let request = self.request(ids, &sampling);
        generation::answer(session, self.draft, self.tokenizer, &request, Some(watch), on_text)
    }

    fn request<'r>(&'r self, prompt: &'r [u32], sampling: &'r Sampling) -> Request<'r> {
        let chatting = self.template.is_some();
        Request {
            prompt,
            max_tokens: self.max_tokens.or((!chatting).then_some(DEFAULT_MAX_TOKENS)),
            end_ids: &self.end_ids,
            stops: &self.stops,
            top_logprobs: self.top_logprobs,
            sampling,
            continuing: !chatting,
        }
    }
}

impl Timings {
    fn of(answer: &Answer, load_time: Duration, kv_cache_bytes: usize) -> Timings {
        let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        Timings {
            load_seconds: load_time.as_secs_f64(),
            prompt_seconds: answer.prompt_time.as_secs_f64(),
            prompt_tokens_per_second: rate(answer.prompt_tokens, answer.prompt_time),
            decode_seconds: answer.decode_time.as_secs_f64(),
            decode_tokens_per_second: rate(answer.steps.len(), answer.decode_time),
            drafted_tokens: answer.guessed.map(|it| it.0),
            accepted_tokens: answer.guessed.map(|it| it.1),
            kv_cache_bytes,
            peak_resident_bytes: peak_resident_bytes(),
        }
    }

    fn note(&self, answer: &Answer) {
        let time = |seconds: f64| units::seconds(Duration::from_secs_f64(seconds));
        output::note(&format!(
            "load    {}\nprompt  {} tokens in {} ({:.1} tokens/s)\ndecode  {} tokens in {} ({:.1} tokens/s)\n\
             cache   {}\npeak    {} resident",
            time(self.load_seconds),
            answer.prompt_tokens,
            time(self.prompt_seconds),
            self.prompt_tokens_per_second,
            answer.steps.len(),
            time(self.decode_seconds),
            self.decode_tokens_per_second,
            units::bytes(self.kv_cache_bytes as u64),
            self.peak_resident_bytes.map_or("unknown".to_string(), units::bytes),
        ));
        if let Some((drafted, accepted)) = answer.guessed {
            output::note(&format!("guesses {accepted} of {drafted} tokens were right"));
        }
    }
}

/// Notes times and memory of an answer in a dialogue.
pub fn note_timings(answer: &Answer, kv_cache_bytes: usize) {
    Timings::of(answer, Duration::ZERO, kv_cache_bytes).note(answer);
}

fn piece(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.pieces(&[id]).concat()
}

fn step_reports(tokenizer: &Tokenizer, answer: &Answer) -> Vec<StepReport> {
    let steps = answer.steps.iter().filter_map(|step| step.logprobs.as_ref());
    steps
        .map(|(chosen, likeliest)| StepReport {
            chosen: *chosen,
            piece: piece(tokenizer, chosen.id),
            likeliest: likeliest.iter().map(|likely| (*likely, piece(tokenizer, likely.id))).collect(),
        })
        .collect()
}

fn print_logprobs(tokenizer: &Tokenizer, answer: &Answer) -> anyhow::Result<()> {
    let mut table = output::table(&["token", "logprob", "likeliest"]);
    for (chosen, likeliest) in answer.steps.iter().filter_map(|step| step.logprobs.as_ref()) {
        let likeliest = likeliest.iter().map(|it| format!("{:?} {:.3}", piece(tokenizer, it.id), it.logprob));
        let likeliest = likeliest.collect::<Vec<_>>().join("  ");
        table.add_row([
            format!("{:?}", piece(tokenizer, chosen.id)),
            format!("{:.4}", chosen.logprob),
            likeliest,
        ]);
    }
    output::print_table(&table)
}
