// SPDX-License-Identifier: Apache-2.0

package readme_test

import (
	"go/ast"
	"regexp"
	"strings"
	"testing"
)

// public are the packages for others.
var public = map[string]string{
	"client": "client", "clienttest": "client/clienttest", "keystore": "keystore", "keystoretest": "keystore/keystoretest",
	"softkey": "softkey", "tpm": "tpm", "transport": "transport", "transporttest": "transport/transporttest",
}

// TestNames: what the documents, and the comments of the public packages, name of these
// packages is there: client.Config.Resources, and c.Health of a Client called c.
func TestNames(t *testing.T) {
	exported := make(map[string]map[string]bool) // by package: names, and Type.Member
	for name, dir := range public {
		exported[name] = exportedOf(parseDir(t, dir))
	}
	qualified := regexp.MustCompile(`(^|[^\w./"-])(client|clienttest|keystore|keystoretest|softkey|tpm|transport|transporttest)\.([A-Z]\w*)(?:\.([A-Z]\w*))?`)
	method := regexp.MustCompile(`(^|[^\w./-])c\.([A-Z]\w*)`)
	checked := 0
	check := func(name, text string) {
		for _, m := range qualified.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(m[3], "Test") || strings.HasPrefix(m[3], "Fuzz") {
				continue
			}
			checked++
			full := m[3]
			if m[4] != "" {
				full += "." + m[4]
			}
			gone := !exported[m[2]][full] && !(m[4] != "" && exported[m[2]][m[3]] && !isType(exported[m[2]], m[3]))
			// tpm's interface of a TPM connection is go-tpm's transport.
			if gone && !(m[2] == "transport" && strings.HasPrefix(m[3], "TPM")) {
				t.Errorf("%s names %s.%s, which is not there", name, m[2], full)
			}
		}
		for _, m := range method.FindAllStringSubmatch(text, -1) {
			checked++
			if !exported["client"]["Client."+m[2]] {
				t.Errorf("%s names c.%s, which a Client does not have", name, m[2])
			}
		}
	}
	for _, name := range documents(t) {
		check(name, read(t, name))
	}
	link := regexp.MustCompile(`\[\*?([A-Z]\w*)(?:\.([A-Z]\w*))?\]`)
	for name, dir := range public {
		for _, file := range parseDir(t, dir) {
			for _, comment := range file.Comments {
				check(dir, comment.Text())
				for _, m := range link.FindAllStringSubmatch(comment.Text(), -1) {
					checked++
					if full := strings.TrimSuffix(m[1]+"."+m[2], "."); !exported[name][full] {
						t.Errorf("a comment of %s links %s, which is not there", dir, full)
					}
				}
			}
		}
	}
	if checked < 200 {
		t.Errorf("%d names were checked", checked)
	}
}

// TestPackagesAreListed: the README names each public package.
func TestPackagesAreListed(t *testing.T) {
	readme := read(t, "README.md")
	for name, dir := range public {
		if !strings.Contains(readme, "[`"+name+"`]("+dir+")") && !strings.Contains(readme, "[`"+dir+"`]("+dir+")") {
			t.Errorf("the README does not list %s", dir)
		}
	}
}

// isType reports whether a name is a type, which has members.
func isType(names map[string]bool, name string) bool { return names["type "+name] }

func exportedOf(files []*ast.File) map[string]bool {
	names := make(map[string]bool)
	for _, file := range files {
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Recv == nil {
					names[decl.Name.Name] = true
					continue
				}
				receiver := decl.Recv.List[0].Type
				if star, ok := receiver.(*ast.StarExpr); ok {
					receiver = star.X
				}
				if ident, ok := receiver.(*ast.Ident); ok {
					names[ident.Name+"."+decl.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.ValueSpec:
						for _, name := range spec.Names {
							names[name.Name] = true
						}
					case *ast.TypeSpec:
						names[spec.Name.Name], names["type "+spec.Name.Name] = true, true
						for _, member := range membersOf(spec.Type) {
							names[spec.Name.Name+"."+member] = true
						}
					}
				}
			}
		}
	}
	return names
}

func membersOf(typ ast.Expr) (members []string) {
	var fields *ast.FieldList
	switch typ := typ.(type) {
	case *ast.StructType:
		fields = typ.Fields
	case *ast.InterfaceType:
		fields = typ.Methods
	default:
		return nil
	}
	for _, field := range fields.List {
		for _, name := range field.Names {
			members = append(members, name.Name)
		}
		if selector, ok := field.Type.(*ast.SelectorExpr); ok && len(field.Names) == 0 {
			members = append(members, selector.Sel.Name)
		}
	}
	return members
}
