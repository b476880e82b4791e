package strict

import (
	"fmt"
	"reflect"
)

// Merge copies the settings of src that differ into dst where take returns true. dst and src are pointers to structs of
// the same type. Merge returns the paths of the settings that it took and of the other settings that differ, in the
// order of the document. take gets a path without list indexes, such as "calls.groups.maxCalls". Items of a list whose
// structs have a field Name are matched by name; a list whose names differ is itself a difference. Lists that dst and
// src share with other values are not changed.
func Merge(dst, src any, take func(path string) bool) (taken, left []string) {
	m := &merger{take: take}
	m.structure("", "", reflect.ValueOf(dst).Elem(), reflect.ValueOf(src).Elem())
	return m.taken, m.left
}

type merger struct {
	take        func(string) bool
	taken, left []string
}

func (m *merger) structure(path, key string, dst, src reflect.Value) {
	from := settings(src)
	for i, s := range settings(dst) {
		m.value(join(path, s.key), join(key, s.key), s.value, from[i].value)
	}
}

func (m *merger) value(path, key string, dst, src reflect.Value) {
	switch {
	case reflect.DeepEqual(dst.Interface(), src.Interface()), dst.Kind() == reflect.Slice && dst.Len()+src.Len() == 0:
	case dst.Kind() == reflect.Struct:
		m.structure(path, key, dst, src)
	case named(dst.Type()):
		m.items(path, key, dst, src)
	case m.take(key):
		dst.Set(src)
		m.taken = append(m.taken, path)
	default:
		m.left = append(m.left, path)
	}
}

// items merges lists of structs with names. Paths contain the indexes of src.
func (m *merger) items(path, key string, dst, src reflect.Value) {
	own := reflect.MakeSlice(dst.Type(), dst.Len(), dst.Len())
	reflect.Copy(own, dst)
	dst.Set(own)
	same := dst.Len() == src.Len()
	for i := range src.Len() {
		name := src.Index(i).FieldByName("Name").String()
		same = same && dst.Index(i).FieldByName("Name").String() == name
		for j := range dst.Len() {
			if dst.Index(j).FieldByName("Name").String() == name {
				m.structure(fmt.Sprintf("%s[%d]", path, i), key, dst.Index(j), src.Index(i))
				break
			}
		}
	}
	if !same {
		m.left = append(m.left, path)
	}
}

// named reports whether t is a list of structs with a field Name.
func named(t reflect.Type) bool {
	if t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Struct {
		return false
	}
	f, ok := t.Elem().FieldByName("Name")
	return ok && f.Type.Kind() == reflect.String
}
