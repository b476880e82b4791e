package domain

import "fmt"

// Count returns a number of things as text, such as 1 user and 2 users.
func Count[N int | int64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
