//! The smallest server: models in folders or files, under names, without anything of the command line.
//!
//! `cargo run --release -p ounce-serve --example folder -- 8080 tales=crates/lab/assets/builtin words=crates/lab/assets/encoder`

use std::error::Error;
use std::sync::Arc;

use ounce_engine::{Engine, Mode};
use ounce_model::Model;
use ounce_serve::{Budget, Server, Settings, Source};

fn open(path: &str) -> Result<Source, ounce_serve::ServeError> {
    let model = Model::open(path)?;
    Ok(Source {
        weight_bytes: model.weight_bytes(),
        template: None,
        adapters: Vec::new(),
        draft: None,
        load: Box::new(|model| Ok(Engine::load(model, Mode::fast())?)),
        model,
    })
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().ok_or("usage: folder PORT NAME=PATH …")?.parse()?;
    let server = Server::new(Settings::default(), Budget::new(1 << 30));
    for argument in arguments {
        let (name, path) = argument.split_once('=').ok_or("a model is NAME=PATH")?;
        let path = path.to_string();
        server.add(name, vec![], Arc::new(move || open(&path)))?;
    }
    let listener = ounce_serve::http::listen(([127, 0, 0, 1], port).into()).await?;
    println!("serving at http://{}", listener.local_addr()?);
    server.run(listener, std::future::pending()).await?;
    Ok(())
}
