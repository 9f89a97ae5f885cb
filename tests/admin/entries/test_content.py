"""Messages and answers as people read them."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache.admin import phrases
from llmcache.admin.entries import conversation, texts
from llmcache.admin.entries.content import Unreadable, read_answer, read_question
from llmcache.admin.entries.conversation import read_messages
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.envelope import ANSWER, seal
from llmcache.models import CacheEntry
from tests.support.admin import (
    draft,
)

NAMES = st.sampled_from(
    [
        "role",
        "name",
        "content",
        "parts",
        "type",
        "text",
        "tool_calls",
        "function",
        "arguments",
        "image_url",
        "url",
        "source",
        "data",
        "media_type",
        "inline_data",
        "input_audio",
        "file",
        "thinking",
        "refusal",
        "input",
    ]
)

WORDS = st.sampled_from(["user", "tool", "text", "image", "file", "tool_use", "data:,", "{", ""])

LEAVES = st.none() | st.booleans() | st.floats() | WORDS | st.text(max_size=5)

MESSAGES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6)
)


class TestMessages:
    def parts(self, content):
        [message] = read_messages([{"role": "user", "content": content}])
        return [(part.label, part.text.shown) for part in message.parts]

    @pytest.mark.parametrize(
        ("role", "kind", "speaker"),
        [
            ("developer", "system", "Developer"),
            ("model", "assistant", "Assistant"),
            ("tool", "tool", "Tool"),
            ("narrator", "other", "narrator"),
        ],
    )
    def test_speakers(self, role, kind, speaker):
        [message] = read_messages([{"role": role, "content": "x"}])
        assert (message.kind, message.speaker) == (kind, speaker)

    @pytest.mark.parametrize(
        ("part", "shown"),
        [
            ("Hello.", ("", "Hello.")),
            ({"type": "text", "text": "Hello."}, ("", "Hello.")),
            ({"type": "input_text", "text": "Hello."}, ("", "Hello.")),
            ({"text": "Hello."}, ("", "Hello.")),
            ({"type": "thinking", "thinking": "Hm."}, ("Thinking", "Hm.")),
            ({"type": "refusal", "refusal": "No."}, ("Refusal", "No.")),
            (
                {"type": "image_url", "image_url": {"url": "https://a.example/cat.png"}},
                ("Image", "https://a.example/cat.png"),
            ),
            (
                {"type": "input_image", "image_url": "data:image/png;base64,QUJD"},
                ("Image", "image/png, 3\xa0bytes"),
            ),
            (
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/gif", "data": "QUI="},
                },
                ("Image", "image/gif, 2\xa0bytes"),
            ),
            (
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
                ("Sound", "wav, 3\xa0bytes"),
            ),
            ({"type": "file", "file": {"file_id": "file-1"}}, ("File", "file-1")),
            (
                {"source": "/tmp/cat.jpg", "media_type": "image/jpeg", "data": None},
                ("Image", "/tmp/cat.jpg"),
            ),
            (
                {"inline_data": {"mime_type": "image/webp", "data": "QUJD"}},
                ("Image", "image/webp, 3\xa0bytes"),
            ),
            (
                {"type": "tool_use", "name": "look", "input": {"a": 1}},
                ("Call of the tool look", '{\n  "a": 1\n}'),
            ),
            ({"type": "tool_result", "content": "found"}, ("Result of a tool", "found")),
            ({"type": "image"}, ("", '{\n  "type": "image"\n}')),
            ({"type": "hologram"}, ("", '{\n  "type": "hologram"\n}')),
            ({"type": ["odd"]}, ("", '{\n  "type": [\n    "odd"\n  ]\n}')),
            (7, ("", "7")),
        ],
    )
    def test_parts(self, part, shown):
        assert self.parts([part]) == [shown]

    def test_a_text_with_more_to_it_is_shown_in_full(self):
        [(_label, shown)] = self.parts([{"type": "text", "text": "x", "cache_control": {}}])
        assert "cache_control" in shown

    def test_tool_calls(self):
        call = {"id": "1", "function": {"name": "look", "arguments": '{"a":1}'}}
        [message] = read_messages([{"role": "assistant", "content": None, "tool_calls": [call]}])
        [part] = message.parts
        assert (part.label, part.text.shown) == ("Call of the tool look", '{\n  "a": 1\n}')

    @pytest.mark.parametrize("arguments", ["{broken", "[" * 100_000, "9" * 5000])
    def test_arguments_that_are_not_json(self, arguments):
        call = {"function": {"name": "look", "arguments": arguments}}
        [message] = read_messages([{"role": "assistant", "tool_calls": [call]}])
        assert message.parts[0].text.shown == arguments

    def test_what_else_was_sent_is_not_lost(self):
        [message] = read_messages([{"role": "tool", "content": "x", "tool_call_id": "call_1"}])
        assert "call_1" in message.parts[1].text.shown

    @given(MESSAGES)
    def test_any_shape_can_be_read(self, messages):
        for message in read_messages(messages):
            assert message.kind in {"system", "user", "assistant", "tool", "other"}
            assert all(isinstance(part.text.shown, str) for part in message.parts)

    def test_instructions_beside_the_messages(self):
        message = conversation.system_message([{"type": "text", "text": "Be brief."}])
        assert (message.kind, message.parts[0].text.shown) == ("system", "Be brief.")


class TestReading:
    def entry(self, **more):
        made = draft(**more)
        return CacheEntry(key=made.key, payload=made.payload, request=made.request)

    def test_instructions_are_part_of_the_conversation(self):
        request = {"messages": [], "parameters": {"system": "Be brief.", "max_tokens": 5}}
        question = read_question(self.entry(request=request))
        assert question.messages[0].parts[0].text.shown == "Be brief."
        assert "system" not in question.parameters.shown

    @pytest.mark.parametrize(
        "request_", [[], "[redacted]", 7, {"parameters": "gone"}, {"messages": "gone", "note": 1}]
    )
    def test_whatever_a_redactor_made_is_shown(self, request_):
        question = read_question(self.entry(request=request_))
        shown = repr(question)
        for word in re.findall(r"\w+", json.dumps(request_)):
            assert word in shown

    @pytest.mark.parametrize(
        "answer", ["text", {}, [], {"a": {"b": {"c": {"d": {"e": 1}}}}}, {"a": [0] * 201}]
    )
    def test_what_is_not_simple_has_no_outline(self, answer):
        assert read_answer(self.entry(answer=answer)).outline == ()

    def test_an_outline_shows_each_value(self):
        answer = {"text": "", "number": 1.5, "none": None, "list": [True, {"a": "b"}], "empty": []}
        fields = read_answer(self.entry(answer=answer)).outline
        values = {field.name: field.value and field.value.shown for field in fields}
        assert values == {"text": "", "number": "1.5", "none": "null", "list": None, "empty": "[]"}
        first, second = fields[3].fields
        assert first.value.shown == "true"
        assert second.fields[0].value.shown == "b"

    def test_an_outline_of_a_list_is_numbered(self):
        answer = read_answer(self.entry(answer=[{"a": "b"}, 7]))
        assert answer.is_list
        assert [field.name for field in answer.outline] == ["1", "2"]

    def test_half_of_a_surrogate_pair_does_not_break_the_page(self):
        answer = read_answer(self.entry(answer=StoredAnswer(b'{"a": "\\ud83d"}')))
        assert answer.json.shown.encode() == b'{\n  "a": "?"\n}'

    @pytest.mark.parametrize("payload", [b"x", seal(ANSWER, "ab" * 32, b"", created=0)])
    def test_damaged(self, payload):
        assert isinstance(read_answer(self.entry(payload=payload)), Unreadable)

    def test_an_envelope_without_an_answer(self):
        key = draft().key
        answer = read_answer(self.entry(payload=seal(ANSWER, key, b"no answer", created=0)))
        assert answer == Unreadable("not an answer")

    def test_no_more_is_shown_than_a_page_can_bear(self, monkeypatch):
        monkeypatch.setattr(texts, "LONGEST_TEXT", 10)
        text = texts.words("x" * 25)
        assert (text.shown, text.left_out) == ("x" * 10, 15)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("shop.models.Ticket", "Ticket"),
        ("shop.tests.<locals>.Ticket", "Ticket"),
        ("shop.Page[shop.Ticket]", "Page[shop.Ticket]"),
        ("Ticket", "Ticket"),
        ("", ""),
    ],
)
def test_class_name(path, name):
    assert phrases.class_name(path) == name
