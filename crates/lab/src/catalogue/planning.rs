//! Forecasts, laws, budgets and advice.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Planning;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        63,
        "HARMONY",
        FAMILY,
        "Adaptive Two-Stage Cloud Resource Scaling via Hierarchical Multi-Indicator Forecasting and Bayesian Decision-Making",
        Some("2408.01000"),
        "From the measured load of a service, forecasts with uncertainty say how many replicas the next interval needs at least cost.",
        "Better than nine methods on four data sets, and over 35,000 GPU hours saved in one month of production.",
    ),
    Method::planned(
        114,
        "Training on Frontier",
        FAMILY,
        "Optimizing Distributed Training on Frontier for Large Language Models",
        Some("2312.12705"),
        "A plan for tensor, pipeline and data parallel training from model, devices and links, with forecasts that worker processes can test.",
        "38.38, 36.14 and 31.96 % of peak at 22B, 175B and 1T parameters, with 100 % weak scaling.",
    ),
    Method::planned(
        123,
        "projektor",
        FAMILY,
        "Performance Scaling via Optimal Transport: Enabling Data Selection from Partially Revealed Sources",
        Some("2307.02460"),
        "A small sample of each data source tells which mixture to buy and how accurate a model trained on all of it would be.",
        "Much smaller forecast error than scaling-law fits from about a thousand pilot samples.",
    ),
];
