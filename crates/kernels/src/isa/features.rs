//! The processor's features that matter to a language model's arithmetic, by the names that compilers use.

/// Those that this processor and its system offer.
pub fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    macro_rules! ask {
        ($has:ident: $($name:tt)*) => {
            $(if std::arch::$has!($name) {
                found.push($name);
            })*
        };
    }
    #[cfg(target_arch = "x86_64")]
    {
        ask!(is_x86_feature_detected: "avx" "avx2" "fma" "f16c" "avxvnni" "avx512f" "avx512bw" "avx512vl"
            "avx512dq" "avx512vbmi" "avx512vnni" "avx512bf16" "avx512fp16");
        let amx = super::amx::present();
        found.extend(amx.int8.then_some("amx-int8"));
        found.extend(amx.bf16.then_some("amx-bf16"));
    }
    #[cfg(target_arch = "aarch64")]
    ask!(is_aarch64_feature_detected: "neon" "fp16" "dotprod" "bf16" "i8mm" "sve" "sve2");
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn the_features_of_a_path_are_among_them() {
        let features = features();
        let needed: &[(Isa, &str)] =
            &[(Isa::Neon, "neon"), (Isa::Avx2, "fma"), (Isa::Avx512, "avx512vnni"), (Isa::Avx512, "avx2")];
        for (isa, feature) in needed {
            assert!(features.contains(feature) || !isa.is_available(), "{feature} in {features:?}");
        }
    }
}
