"""Makes expected.json: what transformers renders for every template in templates/ and every conversation below.

    pip install transformers==5.23.0 jinja2==3.1.6
    python tests/golden/chat/make.py

The templates follow the published formats of the models they are named after; features.jinja collects corners of Jinja.
The clock is held still, so that templates that print the date give the same text every day.
"""

import datetime
import json
from pathlib import Path

from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
NOW = 1795456960  # 2026-11-23 18:02:40 UTC


class StillClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)


TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a place, with \"quotes\" & <tags>.",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "Name of the place, e.g. \u201cZ\u00fcrich\u201d"},
        "days": {"type": "integer", "default": 1, "maximum": 16.5}}, "required": ["place"]},
    "return": {"type": "string"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {
    "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": []}}}


def call(name, arguments, id="abc123XYZ"):
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "You answer briefly. /no_think"}
TURNS = [user("Hi! \U0001f600 What is 1+1?"), assistant("  It's **2**.\n"), user("\n And <b>\"2\"+\u00e9</b>?  ")]
TOOL_TURNS = [user("Weather in Z\u00fcrich?"), assistant("", tool_calls=[call("get_weather", {"place": "Z\u00fcrich", "days": 2})]),
              {"role": "tool", "name": "get_weather", "tool_call_id": "abc123XYZ", "content": "{\"temp\": -3.5}"},
              assistant("It is cold."), user("Thanks")]
CASES = [
    {"name": "one turn", "messages": [user("Hello")], "add_generation_prompt": True},
    {"name": "one turn, no prompt", "messages": [user("Hello")]},
    {"name": "system", "messages": [SYSTEM, user("Hello")], "add_generation_prompt": True},
    {"name": "several turns", "messages": TURNS, "add_generation_prompt": True},
    {"name": "several turns and system", "messages": [SYSTEM, *TURNS, assistant("Yes.")]},
    {"name": "wrong order", "messages": [assistant("a"), user("b")]},
    {"name": "tools", "messages": [user("Weather in Z\u00fcrich?")], "tools": [WEATHER, ADD], "add_generation_prompt": True},
    {"name": "tools and system", "messages": [SYSTEM, user("1+2?")], "tools": [ADD], "add_generation_prompt": True},
    {"name": "tool call", "messages": TOOL_TURNS, "tools": [WEATHER], "add_generation_prompt": True},
    {"name": "tool call last", "messages": TOOL_TURNS[:3], "tools": [WEATHER], "add_generation_prompt": True},
    {"name": "two calls", "messages": [user("Both?"), assistant("Well.", tool_calls=[
        call("add", {"a": 1, "b": 2.0}, "aaaaaaaaa"), call("add", {"a": 1e-7, "b": []}, "bbbbbbbbb")]),
        {"role": "tool", "tool_call_id": "aaaaaaaaa", "content": "3"},
        {"role": "tool", "tool_call_id": "bbbbbbbbb", "content": "?"}], "tools": [ADD], "add_generation_prompt": True},
    {"name": "null content", "messages": [user("Go"), {"role": "assistant", "content": None, "tool_calls": [call("add", {})]},
                                          {"role": "tool", "tool_call_id": "abc123XYZ", "content": "0"}]},
    {"name": "parts", "messages": [{"role": "system", "content": [{"type": "text", "text": "Look."}]},
                                   {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " what? "}]}],
     "add_generation_prompt": True},
    {"name": "thinking", "messages": [user("2+2?"), assistant("<think>\nfour\n</think>\n\n4"), user("Sure?"),
                                      assistant("Yes", reasoning_content="\nI am.\n")]},
    {"name": "thinking by another name", "messages": [user("2+2?"), assistant("4", thinking="easy")]},
    {"name": "no thinking", "messages": [user("2+2?")], "kwargs": {"enable_thinking": False}, "add_generation_prompt": True},
    {"name": "variables", "messages": [user("Search")], "add_generation_prompt": True, "tools": [ADD], "kwargs": {
        "date_string": "1 Jan 2025", "tools_in_user_message": False, "builtin_tools": ["brave_search", "code_interpreter"]}},
    {"name": "continue", "messages": [user("Count"), assistant("one, two,")], "continue_final_message": True},
    {"name": "continue with space", "messages": [user("Count"), assistant("one, two, ")], "continue_final_message": True},
    {"name": "empty", "messages": [user(""), assistant("")]},
]


def render(template, case):
    texts, _ = chat_template_utils.render_jinja_template(
        [json.loads(json.dumps(case["messages"]))], tools=case.get("tools"), chat_template=template,
        add_generation_prompt=case.get("add_generation_prompt", False),
        continue_final_message=case.get("continue_final_message", False), **TOKENS, **case.get("kwargs", {}))
    return texts[0]


def main():
    chat_template_utils.datetime = StillClock
    expected = {}
    for path in sorted((HERE / "templates").glob("*.jinja")):
        rendered = expected[path.stem] = {}
        for case in CASES:
            try:
                rendered[case["name"]] = render(path.read_text(), case)
            except Exception as error:  # noqa: BLE001, a refusal is an expected result as well
                rendered[case["name"]] = {"error": f"{type(error).__name__}: {error}"}
    whole = {"now": NOW, "tokens": TOKENS, "cases": CASES, "expected": expected}
    (HERE / "expected.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    for name, rendered in expected.items():
        errors = {case: out["error"] for case, out in rendered.items() if isinstance(out, dict)}
        print(name, len(rendered), "cases,", len(errors), "refused", errors)


if __name__ == "__main__":
    main()
