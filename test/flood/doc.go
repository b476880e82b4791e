// Package flood holds the deep test of clients that open connections and send nothing: thousands of them, from one
// address and from many, to a program that may open few files. They run in a separate process.
package flood
