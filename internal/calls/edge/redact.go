package edge

import (
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
)

// leastDigits is how many digits make a phone number for which the log has no use in full; those with fewer are short codes.
const leastDigits = 7

// redacted shows a number as logs may, in whatever form a peer sent it: the last four digits are hidden.
func redacted(number string) string {
	if n, err := domain.ParseE164(number); err == nil {
		return n.Redacted()
	}
	digits, cut, end := 0, 0, 0 // number[cut:end] holds the last four
	for i := len(number) - 1; i >= 0; i-- {
		if number[i] < '0' || number[i] > '9' {
			continue
		}
		if digits++; digits == 1 {
			end = i + 1
		}
		if digits == 4 {
			cut = i
		}
	}
	if digits < leastDigits {
		return number
	}
	return number[:cut] + "…" + number[end:]
}

// redactText hides the numbers in a text that a peer was told: those with "+", and every seven digits in a row that are no part of a word.
func redactText(s string) string {
	var b strings.Builder
	kept := 0 // s[:kept] is in b
	for i := 0; i < len(s); {
		if s[i] != '+' && !digit(s[i]) {
			i++
			continue
		}
		start := i
		i++
		for i < len(s) && digit(s[i]) {
			i++
		}
		if s[start] != '+' && start > 0 && letter(s[start-1]) {
			continue
		}
		b.WriteString(s[kept:start])
		b.WriteString(redacted(s[start:i]))
		kept = i
	}
	b.WriteString(s[kept:])
	return b.String()
}

func digit(c byte) bool  { return c >= '0' && c <= '9' }
func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
