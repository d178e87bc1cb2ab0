//! `ounce bench serve`: what servers answer, and how fast, with many clients at once.

mod client;
mod prompts;
mod soak;

use std::time::Duration;

use anyhow::{Context, bail};
use ounce_eval::stats::quantile;
use serde::Serialize;

use self::client::{Answer, Load, Server};
use self::prompts::Prompts;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::output;
use crate::progress::{Progress, Unit};

/// Measure servers with many clients at once: tokens a second, time to the first token and between tokens
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench serve http://127.0.0.1:8080
  ounce bench serve ounce=http://127.0.0.1:8080 llama=http://127.0.0.1:8081 --clients 1,4,16,64
  ounce bench serve http://127.0.0.1:8080 --shared 1000 --prompt 1050     all prompts begin alike
  ounce bench serve http://127.0.0.1:8080 --soak 10000                    does its memory grow, is anything stuck?
Servers are asked by OpenAI's /v1/completions with streaming. Several take turns with the same prompts, and the first is compared with each
of the others. Prompts are made-up tales, pieces of --text or those of --prompts; no prompt comes twice, so that no server remembers it. Answers are greedy, unless
--temperature says otherwise, and as long as -n says, where the server knows `ignore_eos`.")]
pub struct Args {
    /// Addresses, with a name before if one is wanted: NAME=http://HOST:PORT
    #[arg(value_name = "URL", required = true)]
    servers: Vec<String>,
    /// The model to ask for [default: the first that the server lists]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Numbers of clients, each with one request at a time
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,4,16")]
    clients: Vec<usize>,
    /// Requests of a turn [default: four a client, eight at least]
    #[arg(long, value_name = "N")]
    requests: Option<usize>,
    /// Tokens of a prompt, about
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompt: usize,
    /// Tokens, about, that all prompts of a turn begin with
    #[arg(long, value_name = "N", default_value_t = 0)]
    shared: usize,
    /// Let each prompt say its piece so many times, so that the answer repeats it again
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: usize,
    /// How answers are drawn; 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Tokens of an answer
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    tokens: usize,
    /// Turns
    #[arg(long, value_name = "N", default_value_t = 3)]
    turns: usize,
    /// Text to take prompts from
    #[arg(long, value_name = "FILE")]
    text: Option<std::path::PathBuf>,
    /// Prompts to ask, none twice: records with a `prompt` (.jsonl, .json, .csv, .parquet), or the documents of a .txt file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "prompt", "shared", "repeat"])]
    prompts: Option<std::path::PathBuf>,
    /// Send so many requests of all kinds instead, a fifth of which are given up, others malformed, slowly read or cut off, and tell whether the server's
    /// memory stays flat (within 2 %) and within its budget, and whether anything is left behind; ends with 1 if not
    #[arg(long, value_name = "N")]
    soak: Option<usize>,
    /// The key to send
    #[arg(long, value_name = "KEY", env = "OUNCE_BENCH_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Seconds after which a request counts as failed
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

impl Args {
    /// Where prompts come from.
    fn prompts(&self) -> anyhow::Result<Prompts> {
        if let Some(path) = &self.prompts {
            return Prompts::of_file(path);
        }
        let read = |path: &std::path::PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
        };
        let text = self.text.as_ref().map(read).transpose()?;
        Prompts::new(text.as_deref(), self.prompt, self.shared, self.repeat)
    }
}

/// One server with one number of clients, over all turns.
#[derive(Debug, Serialize)]
struct Row {
    server: String,
    clients: usize,
    requests: usize,
    failed: usize,
    /// What the first failure was.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Mean tokens of prompts and answers, as the server counts.
    prompt_tokens: f64,
    answer_tokens: f64,
    /// Answered tokens a second; the median of turns.
    tokens_per_second: f64,
    first_token_median: f64,
    first_token_p99: f64,
    /// Seconds between tokens of one answer.
    token_median: f64,
    token_p99: f64,
    /// The first server against this one: medians of the turns' ratios of tokens a second, and of all requests' times to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_server: Option<Ratios>,
}

#[derive(Debug, Serialize)]
struct Ratios {
    throughput: f64,
    throughput_turns: Vec<f64>,
    first_token_median: f64,
    first_token_p99: f64,
}

/// What all turns of one server and number of clients gave.
#[derive(Debug, Default)]
struct Found {
    speeds: Vec<f64>,
    answers: Vec<Answer>,
    failed: usize,
    failure: Option<String>,
}

impl Found {
    fn of(&self, number: impl Fn(&Answer) -> Option<f64>) -> Vec<f64> {
        self.answers.iter().filter_map(number).collect()
    }

    fn first_token(&self, share: f64) -> f64 {
        quantile(&self.of(|it| Some(it.first.as_secs_f64())), share)
    }

    fn between(&self, share: f64) -> f64 {
        quantile(&self.of(Answer::between), share)
    }
}

/// Runs the command.
///
/// # Errors
/// If a server can't be asked, none of its answers was whole, or a number makes no sense.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if args.clients.contains(&0)
        || [args.tokens, args.turns, args.prompt, args.repeat].contains(&0)
        || args.requests == Some(0)
    {
        bail!("--clients, --requests, --prompt, --turns and -n should be 1 or more");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(count) = args.soak {
        let [address] = &args.servers[..] else { bail!("--soak is for one server") };
        let clients = args.clients.iter().copied().max().unwrap_or(16);
        return runtime.block_on(async {
            let server = Server::find(address, args.model.clone(), args.key.clone()).await?;
            soak::run(server, count, clients, args.prompts()?, globals.json).await
        });
    }
    let rows = runtime.block_on(measure(&args))?;
    if globals.json {
        output::json(&rows)?;
        return Ok(Outcome::Done);
    }
    print(&rows)?;
    Ok(Outcome::Done)
}

async fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut prompts = args.prompts()?;
    let mut servers = Vec::new();
    for address in &args.servers {
        servers.push(Server::find(address, args.model.clone(), args.key.clone()).await?);
    }
    let watch = Watch::start();
    let mut bar = Progress::new("asking", Unit::Items);
    let of = |clients: usize| args.requests.unwrap_or((4 * clients).max(8));
    let total: usize = args.clients.iter().map(|&it| of(it) * args.turns * servers.len()).sum();
    let mut done = 0;
    let mut found: Vec<Vec<Found>> =
        args.clients.iter().map(|_| servers.iter().map(|_| Found::default()).collect()).collect();
    for turn in 0..args.turns {
        for (level, &clients) in args.clients.iter().enumerate() {
            let asked = prompts.next(of(clients))?;
            // Who begins changes, so that nobody always comes after the same one.
            for at in 0..servers.len() {
                let which = (at + turn) % servers.len();
                let load = Load {
                    server: &servers[which],
                    prompts: &asked,
                    tokens: args.tokens,
                    temperature: args.temperature,
                    timeout: Duration::from_secs(args.timeout),
                };
                let (answers, wall) = load
                    .run(clients, &mut |more| {
                        done += more;
                        bar.set(done as u64, total as u64);
                        Ok(watch.check()?)
                    })
                    .await?;
                found[level][which].take(answers, wall);
            }
        }
    }
    drop(bar);
    let mut rows = Vec::new();
    for (found, &clients) in found.iter().zip(&args.clients) {
        for (found, server) in found.iter().zip(&servers) {
            if found.answers.is_empty() {
                let why = found.failure.clone().unwrap_or_default();
                bail!("{}: no request of {clients} clients was answered: {why}", server.name);
            }
        }
        rows.extend(servers.iter().enumerate().map(|(at, server)| row(&server.name, clients, at, found)));
    }
    Ok(rows)
}

impl Found {
    fn take(&mut self, answers: Vec<Result<Answer, String>>, wall: Duration) {
        let mut tokens = 0;
        for answer in answers {
            match answer {
                Ok(answer) => {
                    tokens += answer.tokens;
                    self.answers.push(answer);
                }
                Err(why) => {
                    self.failed += 1;
                    self.failure.get_or_insert(why);
                }
            }
        }
        self.speeds.push(tokens as f64 / wall.as_secs_f64());
    }
}

fn row(name: &str, clients: usize, at: usize, found: &[Found]) -> Row {
    let (first, own) = (&found[0], &found[at]);
    let mean = |number: fn(&Answer) -> usize| {
        own.answers.iter().map(|it| number(it) as f64).sum::<f64>() / own.answers.len() as f64
    };
    let ratios = (at > 0).then(|| {
        let turns: Vec<f64> = first.speeds.iter().zip(&own.speeds).map(|(a, b)| a / b).collect();
        Ratios {
            throughput: quantile(&turns, 0.5),
            throughput_turns: turns,
            first_token_median: first.first_token(0.5) / own.first_token(0.5),
            first_token_p99: first.first_token(0.99) / own.first_token(0.99),
        }
    });
    Row {
        server: name.to_owned(),
        clients,
        requests: own.answers.len() + own.failed,
        failed: own.failed,
        failure: own.failure.clone(),
        prompt_tokens: mean(|it| it.prompt),
        answer_tokens: mean(|it| it.tokens),
        tokens_per_second: quantile(&own.speeds, 0.5),
        first_token_median: own.first_token(0.5),
        first_token_p99: own.first_token(0.99),
        token_median: own.between(0.5),
        token_p99: own.between(0.99),
        first_server: ratios,
    }
}

fn print(rows: &[Row]) -> anyhow::Result<()> {
    let head = [
        "clients",
        "server",
        "requests",
        "prompt",
        "answer",
        "tokens/s",
        "first token",
        "99 %",
        "a token",
        "99 %",
        "the first server's",
    ];
    let mut table = output::table(&head);
    let ms = |seconds: f64| format!("{:.1} ms", 1e3 * seconds);
    for row in rows {
        let failed = if row.failed > 0 { format!(", {} failed", row.failed) } else { String::new() };
        table.add_row([
            row.clients.to_string(),
            row.server.clone(),
            format!("{}{failed}", row.requests),
            format!("{:.0}", row.prompt_tokens),
            format!("{:.0}", row.answer_tokens),
            format!("{:.1}", row.tokens_per_second),
            ms(row.first_token_median),
            ms(row.first_token_p99),
            ms(row.token_median),
            ms(row.token_p99),
            match &row.first_server {
                None => String::new(),
                Some(it) => format!(
                    "{:.2}× tokens/s, {:.2}× first token, {:.2}× at 99 %",
                    it.throughput, it.first_token_median, it.first_token_p99
                ),
            },
        ]);
    }
    output::print_table(&table)?;
    for row in rows {
        if let Some(why) = &row.failure {
            output::note(&format!(
                "{} with {} clients: {} failed, the first: {why}",
                row.server, row.clients, row.failed
            ));
        }
    }
    Ok(())
}
