"""How the bundled small programs read their input and print their output: in words, and as Python.

The form is that of `numbers.py`. What the readers read is drawn in `inputs.py`.
"""

END_STEPS = """
ints_on_a_line: input -> ints
  The only line of input holds integers, separated by spaces.
    {y} = list(map(int, input().split()))
counted_line: input -> ints
  The first line of input holds n; the second holds integers, of which only the first n count.
    n = int(input())
    {y} = [int(t) for t in input().split()][:n]
counted_lines: input -> ints
  The first line of input holds n, which may be 0; n lines follow with one integer each.
    {y} = []
    for _ in range(int(input())):
        {y}.append(int(input()))
ints_until_zero: input -> ints
  Each line of input holds one integer; the first 0 ends the list and does not belong to it.
    {y} = []
    while True:
        v = int(input())
        if v == 0:
            break
        {y}.append(v)
one_or_many: input -> ints
  The first line of input is `one` or `many`. After `one`, a line with the only integer follows;
  after `many`, a line with n and then n lines with one integer each.
    if input().strip() == 'many':
        {y} = [int(input()) for _ in range(int(input()))]
    else:
        {y} = [int(input())]
ints_anywhere: input -> ints
  The input holds integers, separated by spaces or line ends.
    import sys

    {y} = [int(t) for t in sys.stdin.read().split()]
one_int: input -> int
  The only line of input holds one integer.
    {y} = int(input())
product_less_sum: input -> int
  The only line of input holds two integers; take their product minus their sum.
    a, b = map(int, input().split())
    {y} = a * b - (a + b)
operation: input -> int
  The first line of input is `plus`, `times` or `flip`, the second an integer. For `plus` or `times`
  a third line holds another integer: add the two, or multiply them. For `flip`, change the sign of the
  only integer.
    operation = input()
    {y} = int(input())
    if operation == 'plus':
        {y} += int(input())
    elif operation == 'times':
        {y} *= int(input())
    else:
        {y} = -{y}
commands: input -> int
  The first line of input holds n; n lines follow with one command each, `add` and an integer, `times`
  and an integer, or `flip`. Begin with 0 and apply the commands in turn; `flip` changes the sign.
    {y} = 0
    for _ in range(int(input())):
        command = input().split()
        if command[0] == 'add':
            {y} += int(command[1])
        elif command[0] == 'times':
            {y} *= int(command[1])
        else:
            {y} = -{y}
line: input -> text
  The input is one line of text; spaces at its beginning belong to it.
    {y} = input()
two_lines: input -> text
  The input is two lines of text, with spaces at their beginnings belonging to them; join them to one
  line, with a `+` in between.
    {y} = input()
    {y} = {y} + '+' + input()
words_on_a_line: input -> words
  The only line of input holds words, separated by spaces.
    {y} = input().split()
words_until_end: input -> words
  Each line of input holds one word; the word `end` ends the list and does not belong to it.
    {y} = []
    word = input()
    while word != 'end':
        {y}.append(word)
        word = input()
print_int: int -> output
  Print the result.
    print({x})
print_answer: int -> output
  Print the result after the word `answer:` and a space.
    print('answer:', {x})
print_one_line: ints -> output
  Print the numbers on one line, separated by spaces; if there are none, print `none`.
    if {x}:
        print(*{x})
    else:
        print('none')
print_counted: ints -> output
  Print how many numbers there are, and then each number on a line of its own.
    print(len({x}))
    for v in {x}:
        print(v)
print_text: text -> output
  Print the resulting text.
    print({x})
print_brackets: text -> output
  Print the resulting text in square brackets.
    print('[' + {x} + ']')
print_commas: words -> output
  Print the words on one line, separated by a comma and a space; if there are none, print `none`.
    print(', '.join({x}) or 'none')
print_numbered: words -> output
  Print each word on a line of its own after its number and a point, as in `1. word`; then print a line `end`.
    for i, w in enumerate({x}, 1):
        print(str(i) + '. ' + w)
    print('end')
"""
