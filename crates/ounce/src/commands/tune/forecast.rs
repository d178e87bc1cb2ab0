//! What training an adapter will take.

use ounce_peft::{Adapted, Settings};
use ounce_train::Trainable;
use ounce_train::config::Config;
use ounce_train::optim::Optimizer;

use super::super::train::setup::{self, Fed};
use super::{Args, Forecast};
use crate::{output, units};

pub(super) fn forecast(
    args: &Args,
    config: &Config,
    settings: &Settings,
    adapted: &mut Adapted,
    fed: &mut Fed,
    optimizer: &Optimizer,
) -> anyhow::Result<Forecast> {
    let begun = adapted.memory();
    let seconds = setup::seconds_per_step(adapted, fed.train.as_mut(), config.train.accumulation)?;
    adapted.remember(&begun)?;
    let trained = adapted.trained();
    let model = adapted.skeleton();
    let decoded = adapted.params().iter().filter(|param| !param.is_trainable());
    let decoded_bytes: u64 = decoded.map(|param| 4 * param.value.len() as u64).sum();
    let per_batch = fed.tokens_per_step as usize / config.train.accumulation.max(1);
    let (model_bytes, buffer_bytes) = (model.weight_bytes(), adapted.workspace_bytes(per_batch) as u64);
    let gradient_and_optimizer_bytes = 8 * trained + optimizer.bytes() as u64;
    Ok(Forecast {
        method: settings.method.name(),
        trained_parameters: trained,
        parameters: model.spec.parameters(),
        steps: settings.steps,
        tokens_per_step: fed.tokens_per_step,
        learning_rate: args.run.lr.unwrap_or(settings.method.usual_rate(&model.spec)),
        model_bytes,
        decoded_bytes,
        gradient_and_optimizer_bytes,
        buffer_bytes,
        memory_bytes: model_bytes + decoded_bytes + gradient_and_optimizer_bytes + buffer_bytes,
        seconds: seconds * settings.steps as f64,
    })
}

pub(super) fn print_forecast(forecast: &Forecast) {
    let Forecast { trained_parameters, parameters, steps, tokens_per_step, .. } = *forecast;
    output::note(&format!(
        "{}: {} of {} parameters are trained ({:.3} %), learning rate {:.1e}",
        forecast.method,
        units::count(trained_parameters),
        units::count(parameters),
        100.0 * trained_parameters as f64 / parameters as f64,
        forecast.learning_rate,
    ));
    output::note(&format!(
        "{steps} steps of {tokens_per_step} tokens, about {}; memory about {}: {} model, {} decoded, {} gradients and optimizer, {} \
         buffers",
        units::time(forecast.seconds),
        units::bytes(forecast.memory_bytes),
        units::bytes(forecast.model_bytes),
        units::bytes(forecast.decoded_bytes),
        units::bytes(forecast.gradient_and_optimizer_bytes),
        units::bytes(forecast.buffer_bytes),
    ));
}
