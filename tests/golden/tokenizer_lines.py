"""The thousand lines the tokenizer golden files are made from: `lines()` gives the same list every time.

Mixed on purpose: many scripts, combining marks, joined emoji, all kinds of white space, digits, code, addresses, and
text that looks like special tokens.
"""

import random

WORDS = {
    "latin": "the quick brown fox jumps over a lazy dog when it's raining we'll don't I'M HE'LL rock'n'roll "
    "über Straße naïve café résumé Ærøskøbing smörgåsbord Žluťoučký kůň İstanbul ılık œuvre Ĳsselmeer ﬁne ﬂow",
    "vietnamese": "Tiếng Việt được viết bằng chữ Quốc ngữ Nguyễn Phương",
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία ΑΘΉΝΑ ς",
    "cyrillic": "Съешь же ещё этих мягких французских булок Україна ґедзь ЁЖИК",
    "arabic": "السلام عليكم ورحمة الله وبركاته كِتَابٌ فارسی می‌خواهم ۱۲۳",
    "hebrew": "שלום עולם בְּרֵאשִׁית בָּרָא",
    "devanagari": "नमस्ते दुनिया क्षत्रिय हिन्दी में लिखा १२३",
    "bengali": "আমার সোনার বাংলা আমি তোমায় ভালোবাসি",
    "tamil": "வணக்கம் உலகம் தமிழ்",
    "thai": "สวัสดีชาวโลก ภาษาไทย กำลัง",
    "khmer": "សួស្តីពិភពលោក",
    "amharic": "ሰላም ለዓለም",
    "georgian": "გამარჯობა მსოფლიო",
    "armenian": "Բարեւ աշխարհ",
    "chinese": "你好世界 我喜欢吃苹果。 这是一个测试，不是吗？ 臺灣 𠮷野家",
    "japanese": "こんにちは世界 カタカナ ﾊﾝｶｸ が ガ 日本語のテスト、ですね！",
    "korean": "안녕하세요 세계 한국어 각",
}
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "❤️", "🧑🏿‍🚀", "1️⃣", "☃", "🤷‍♂️", "𝔘𝔫𝔦", "½", "²", "Ⅷ"]
MARKS = ["e\u0301", "a\u0308\u0323", "n\u0303o", "Z\u0351\u036b\u0343a\u0328lgo", "\u0301", "ĕ̀", "\u1100\u1161\u11a8"]
SPACES = [" ", "  ", "   ", "     ", "\t", "\t\t", " \t ", "\n", "\n\n", "\r\n", " \n", "\n ", "\u00a0", "\u3000",
          "\u2009", "\u200b", "\ufeff", " " * 17, "\r", "\u2028", "\x0b", "\u0085"]
NUMBERS = ["0", "7", "42", "123", "1234", "12345678901234567890", "3.14159", "1,000,000", "-5e-10", "0xDEADBEEF",
           "2026-11-23T18:02:40Z", "1/2", "50%", "$19.99", "192.168.0.1", "x1y2z3", "٣٤٥", "１２３", "⑳"]
CODE = ["def f(x):\n    return x**2", "for (int i = 0; i < n; ++i) {\n\t\ta[i] += b[i];\n}", "x != y && z <= w || !q",
        "let v: Vec<u8> = vec![0; 16];", "<div class=\"a\">&nbsp;</div>", "SELECT * FROM t WHERE id='1' -- c",
        "#include <stdio.h>\r\n", "{\"k\": [1, 2, null]}", "a->b::c.d()", "/* ... */ //===---===//", "\\frac{a}{b}",
        "$ ls -la | grep '^d'", "if __name__ == '__main__':", "_snake_case camelCase PascalCase SCREAMING_CASE"]
URLS = ["https://example.org/a/b?c=d&e=%20#f", "mailto:a.b+c@d-e.co.uk", "C:\\Users\\x\\y.txt", "../../etc/passwd",
        "www.test.com:8080", "@user", "#hashtag"]
LOOKALIKES = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>user", "<|im_end|>", "[CLS]", "[SEP]", "[MASK] x",
              "[UNK]", "<0x0A>", "<0xE2>", "▁", "▁▁a", "##ing", "Ġthe", "<|eot_id|>", "<pad>", "[INST]", "<s >", "< s>"]
PUNCTUATION = ["!", "?", "...", "…", "—", "«»", "“quoted”", "'single'", "(a)", "[b]", ";", ":", "¿Qué?", "''", "``",
               "!!!???", "*" * 9, "=" * 20, "-" * 7, "、。", "~^`|"]


def lines():
    rng = random.Random(20260)
    words = {name: text.split(" ") for name, text in WORDS.items()}
    everything = sum(words.values(), []) + EMOJI + MARKS + NUMBERS + URLS + LOOKALIKES + PUNCTUATION
    out = ["", " ", "a", " a", "a ", "\n", "Hello, world!", "hello  world", "  leading", "trailing  "]
    out += EMOJI + MARKS + SPACES + NUMBERS + CODE + URLS + LOOKALIKES + PUNCTUATION
    while len(out) < 1000:
        kind = rng.randrange(8)
        if kind < 3:  # running text of one script, with English around it now and then
            script = words[rng.choice(list(words))]
            pool = script if rng.random() < 0.7 else script + words["latin"]
            text = " ".join(rng.choice(pool) for _ in range(rng.randrange(2, 7)))
        elif kind < 6:  # anything beside anything, with or without space
            parts = []
            for _ in range(rng.randrange(2, 7)):
                parts += [rng.choice(everything), rng.choice(SPACES) if rng.random() < 0.6 else ""]
            text = "".join(parts)
        elif kind == 6:
            text = rng.choice(SPACES) + rng.choice(CODE) + rng.choice(SPACES) + rng.choice(NUMBERS)
        else:  # characters of one script, shuffled
            letters = list("".join(rng.choice(list(words.values()))) + " '.,1a")
            text = "".join(rng.choice(letters) for _ in range(rng.randrange(3, 20)))
        out.append(text)
    return out
