"""Chat templates of our own that behave as those of thinking models do: thoughts are written, and taken back
once turns follow.

Only the behaviour is theirs: the layout, what is stripped where, and how a turn is opened. Their texts about
tools are not.
"""

QWEN3 = r"""
{%- set ns = namespace(asked=-1) -%}
{%- for m in messages -%}
  {%- if m.role == 'user' -%}{%- set ns.asked = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- if tools or messages[0].role == 'system' -%}
  {{- '<|im_start|>system\n' ~ (messages[0].content if messages[0].role == 'system' else '') -}}
  {{- '\nFunctions: ' ~ tools | tojson if tools -}}
  {{- '<|im_end|>\n' -}}
{%- endif -%}
{%- for m in messages -%}
  {%- if m.role == 'user' or m.role == 'system' and not loop.first -%}
    {{- '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' -}}
  {%- elif m.role == 'assistant' -%}
    {%- set parts = m.content.split('</think>') -%}
    {%- set thought = parts[0].split('<think>')[-1].strip('\n') if parts | length > 1 else '' -%}
    {%- set answer = parts[-1].lstrip('\n') if parts | length > 1 else m.content -%}
    {{- '<|im_start|>assistant\n' -}}
    {%- if KEEPS and loop.index0 > ns.asked and (loop.last or thought) -%}
      {{- '<think>\n' ~ thought ~ '\n</think>\n\n' ~ answer.lstrip('\n') -}}
    {%- else -%}
      {{- answer -}}
    {%- endif -%}
    {%- for call in m.tool_calls or [] -%}
      {{- '\n' if answer or not loop.first -}}
      {{- '<tool_call>\n{"name": "' ~ call.function.name ~ '", "arguments": ' -}}
      {{- call.function.arguments | tojson ~ '}\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\n' -}}
  {%- elif m.role == 'tool' -%}
    {{- '<|im_start|>user' if loop.previtem.role != 'tool' -}}
    {{- '\n<tool_response>\n' ~ m.content ~ '\n</tool_response>' -}}
    {{- '<|im_end|>\n' if loop.last or loop.nextitem.role != 'tool' -}}
  {%- endif -%}
{%- endfor -%}
{{- '<|im_start|>assistant\nOPENED' if add_generation_prompt -}}
"""

R1 = r"""
{{- bos_token -}}
{%- for m in messages if m.role == 'system' -%}{{- m.content -}}{%- endfor -%}
{%- for m in messages -%}
  {{- '<｜User｜>' ~ m.content if m.role == 'user' -}}
  {%- if m.role == 'assistant' -%}
    {{- '<｜Assistant｜>' ~ m.content.split('</think>')[-1] ~ '<｜end▁of▁sentence｜>' -}}
  {%- endif -%}
{%- endfor -%}
{{- '<｜Assistant｜>OPENED' if add_generation_prompt -}}
"""


def _variant(template: str, keeps: bool, opened: bool) -> str:
    return (
        template.strip()
        .replace("KEEPS", str(keeps).lower())
        .replace("OPENED", "<think>\\n" if opened else "")
    )


# By family of `training_templates.py`: does the last turn keep its thoughts, do the opening words open them.
THINKING = {
    "Qwen3": [_variant(QWEN3, True, False)],
    "Qwen3-Thinking or QwQ": [_variant(QWEN3, True, True), _variant(QWEN3, False, True)],
    "DeepSeek-R1-Distill": [_variant(R1, False, True)],
    "DeepSeek-R1-0528": [_variant(R1, False, False)],
}
STAND_INS = [(family, template) for family, templates in THINKING.items() for template in templates]
