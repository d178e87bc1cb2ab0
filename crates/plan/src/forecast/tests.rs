//! Forecasts of small specs on a made-up machine.
